"""Tests of the language models' side of the generation service."""

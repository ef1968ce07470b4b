"""Tests of the model backends of the generation service."""

"""Tests of models on GPUs."""

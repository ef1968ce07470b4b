"""Tests of the parts of `python -m benchmarks.sight`."""

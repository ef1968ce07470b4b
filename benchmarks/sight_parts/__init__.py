"""Parts of `python -m benchmarks.sight`."""

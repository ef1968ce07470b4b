"""Parts of `python -m benchmarks.drift`."""

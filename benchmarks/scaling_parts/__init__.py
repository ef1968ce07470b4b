"""What `python -m benchmarks.scaling` measures, and the cost model that is fitted to it."""

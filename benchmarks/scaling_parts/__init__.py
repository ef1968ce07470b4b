"""Measurements of `python -m benchmarks.scaling`, and the cost model that is fitted to them."""

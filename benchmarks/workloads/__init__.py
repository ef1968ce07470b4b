"""Data sets and load generators of the benchmarks."""

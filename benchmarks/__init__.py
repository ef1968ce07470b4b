"""Benchmarks of Nearline, the baselines they compare with, and scripts that make defaults."""

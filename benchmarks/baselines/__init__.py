"""Minimal servers and libraries that benchmarks compare with."""

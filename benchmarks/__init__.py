"""Benchmarks of Nearline, their baselines, and scripts that compute default models."""

"""Evaluations that `nearline eval` runs."""

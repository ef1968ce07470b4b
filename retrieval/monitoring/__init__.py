"""Measures recall and drift, and records traffic, alongside requests."""

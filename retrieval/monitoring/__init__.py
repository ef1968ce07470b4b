"""Recall, drift and recorded traffic, measured alongside requests."""

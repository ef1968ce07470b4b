"""Traces of calls across services: spans, sampling, propagation, export, and slow requests."""

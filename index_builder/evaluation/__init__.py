"""Metrics of retrieval and recommendation, with confidence intervals."""

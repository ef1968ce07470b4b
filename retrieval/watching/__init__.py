"""Watches a router at work: how well its index finds, whether its traffic drifts, what is asked."""

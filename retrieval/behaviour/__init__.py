"""Behaviour models: statistics and models of interactions, as a router serves them."""

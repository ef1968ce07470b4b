"""Shipped judges of pairs of texts: small changes of the default model."""

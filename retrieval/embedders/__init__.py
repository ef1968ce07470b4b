"""Embedding endpoints by fingerprint, and the embedding of documents."""

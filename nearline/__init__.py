"""Nearline: recommendation and RAG retrieval over your own catalogue and documents."""

__version__ = "0.1.0"

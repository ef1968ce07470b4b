"""Nearline beside other vector stores, on the same vectors at equal recall."""

"""Filters in a shard: which documents match, and how the index is searched among them."""

"""Caches of lists, in process and in Redis, and what invalidates them."""

"""Caches of lists that everyone shares, and the changes that invalidate them."""

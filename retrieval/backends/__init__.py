"""Index engines; each is the only importer of its library."""

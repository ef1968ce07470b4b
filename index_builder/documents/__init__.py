"""Documents between a corpus and a snapshot: rows, spool, vectors, item tables."""

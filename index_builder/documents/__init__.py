"""Documents on their way into a snapshot: rows, spools, item tables."""

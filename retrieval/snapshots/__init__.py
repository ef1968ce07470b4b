"""Which snapshots are loaded and served, and how the aliases decide it."""

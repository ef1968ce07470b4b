"""The life of a snapshot: named by an alias, loaded, in force, drained, let go."""

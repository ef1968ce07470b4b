"""The change log: what users have changed since a snapshot was built, in order, and kept."""

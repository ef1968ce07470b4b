"""Loads and serves the snapshots that the aliases name."""

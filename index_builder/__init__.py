"""Builds snapshots: reads, cuts, embeds, indexes, measures and publishes documents."""

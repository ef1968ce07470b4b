"""Builds snapshots: reads documents, cuts, embeds, indexes, measures and publishes them."""

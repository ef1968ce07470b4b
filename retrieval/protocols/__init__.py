"""Seams that every room may use: shards, watermarks, snapshot references."""

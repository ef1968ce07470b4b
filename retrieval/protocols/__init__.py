"""Protocols and records that all of retrieval shares: shards, watermarks, snapshots, metrics."""

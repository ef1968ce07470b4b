"""Shards backed by Milvus: one Milvus collection per snapshot, one row per chunk."""

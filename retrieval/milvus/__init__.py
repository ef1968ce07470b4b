"""The same shards over Milvus: one collection of it per snapshot, one row per chunk."""

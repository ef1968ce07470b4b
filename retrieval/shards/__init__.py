"""Shards: loading, batching and searching in this process, and clients for shard servers."""

"""Shards in this process and behind gRPC."""

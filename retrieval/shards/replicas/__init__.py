"""Replicas of a shard: load balancing, hedging, retries and health."""

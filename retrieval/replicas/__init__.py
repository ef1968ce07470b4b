"""Replicas of shards: which of them answer, which to ask, and what to do when one does not."""

"""Bounds what is remembered of each tenant in Redis, so that no caller can fill it for others."""

from __future__ import annotations

import time

from nearline.errors import FeedBlocked
from retrieval.redis_client.connection import Redis, translate_redis_errors
from retrieval.writes.feed_block import REDIS, FeedBlock

# Of the memory of Redis, what a tenant may add in the lifetime of a conversation.
TENANT_SHARE = 1 / 8


class MemoryQuota:
    """Counts the bytes that each tenant adds, and refuses them while Redis is nearly full.

    Args:
        redis: Where conversations, answers or lists are stored.
        block: Measures that Redis.
        ttl_s: Longest lifetime of what is stored, in seconds.
    """

    def __init__(self, redis: Redis, block: FeedBlock, ttl_s: int) -> None:
        self._redis = redis
        self._block = block
        self._ttl_s = ttl_s

    async def reserve(self, owner: str, size: int) -> None:
        """Counts bytes that are about to be stored for a `Caller.owner`.

        Raises: FeedBlocked: Redis is nearly full, or the tenant has no bytes left. NotReady: Redis
            is unavailable.
        """
        for state in self._block.states:
            if state.name != REDIS:
                continue
            if state.problem:
                raise FeedBlocked(
                    "it is not stored, as Redis is nearly full; delete conversations, or give it "
                    "more memory (maxmemory)"
                )
            most = round(TENANT_SHARE * state.total_bytes)
            key = f"nearline:{{memory}}:{owner.partition('+')[0]}:{time.time() // self._ttl_s:.0f}"
            async with translate_redis_errors(), self._redis.pipeline(transaction=False) as pipe:
                pipe.incrby(key, size)
                pipe.expire(key, self._ttl_s)
                used, _ = await pipe.execute()
            if used > most:
                raise FeedBlocked(
                    f"it is not stored, as the tenant has stored {most:,} bytes of conversations "
                    "and answers lately; try again later, or give Redis more memory (maxmemory)"
                )

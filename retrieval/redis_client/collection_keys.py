"""The Redis keys of a collection, whichever service wrote them, and their removal."""

from __future__ import annotations

from collections.abc import Sequence

from retrieval.redis_client.connection import Redis, translate_redis_errors

_BATCH = 1_000


def key_patterns(collection: str) -> Sequence[str]:
    """Returns patterns that match all keys of a collection, and none of another.

    Names of collections contain no special character of a pattern.
    """
    return (
        f"nl:{{{collection}/*",  # Change log; users and sessions, with their histories.
        f"nl:{{{collection}}}:*",  # Requests for rebuilds; exports to Milvus.
        f"nearline:hot:[0-9]:{collection}:*",  # Cached lists.
        f"nearline:answer:[0-9]:{collection}:*",  # Cached answers.
        f"nearline:{{{collection}/*}}:session",  # Conversations.
    )


async def remove_keys(redis: Redis, collection: str) -> int:
    """Removes all keys of a collection, a thousand at a time.

    Returns: Their number.
    Raises: NotReady: Redis does not answer; it is safe to repeat the call.
    """
    removed = 0
    async with translate_redis_errors("dropping a collection"):
        for pattern in key_patterns(collection):
            batch: list[bytes] = []
            async for key in redis.scan_iter(match=pattern, count=_BATCH):
                batch.append(key)
                if len(batch) == _BATCH:
                    removed += await _unlink(redis, batch)
                    batch = []
            removed += await _unlink(redis, batch)
    return removed


async def _unlink(redis: Redis, keys: Sequence[bytes]) -> int:
    # One by one: in a cluster, the keys of one command must share a slot.
    async with redis.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.unlink(key)
        return sum(await pipe.execute())

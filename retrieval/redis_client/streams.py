"""Reads several streams at once, and waits for new entries."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from retrieval.redis_client.cluster import cluster_of
from retrieval.redis_client.connection import Redis

# In a cluster, a command reads streams of one slot, so streams are polled.
_POLL_S = 0.1


async def read_streams(
    client: Redis, after: Mapping[str, str], count: int, wait_s: float
) -> list[tuple[bytes, list[Any]]]:
    """Returns the next entries of streams, by stream; those without any are left out.

    Args:
        client: Redis.
        after: The last entry already read, by stream.
        count: Maximum entries per stream.
        wait_s: Seconds to wait for an entry if there is none.
    Raises: RedisError, OSError: Redis is unavailable.
    """
    if cluster_of(client) is None:
        streams: Any = dict(after)
        reply: Any = await client.xread(
            streams,
            count=count,
            # Rounded up: 0 would wait forever.
            block=int(wait_s * 1_000) + 1 if wait_s else None,
        )
        return list(reply)
    loop = asyncio.get_running_loop()
    until = loop.time() + wait_s
    while True:
        async with client.pipeline(transaction=False) as pipe:
            for name, last in after.items():
                pipe.xread({name: last}, count=count)
            found = [stream for reply in await pipe.execute() for stream in reply]
        left_s = until - loop.time()
        if found or left_s <= 0:
            return found
        await asyncio.sleep(min(_POLL_S, left_s))

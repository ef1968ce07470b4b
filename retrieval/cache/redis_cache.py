"""Hot lists in Redis, for all routers; and which of them computes one."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from nearline.errors import NotReady
from retrieval.cache.cached_list import ListKey
from retrieval.cache.codec import StoredList, redis_key, unpack
from retrieval.protocols import metrics
from retrieval.redis_client.connection import DELETE_IF_EQUAL, Redis, translate_redis_errors
from retrieval.redis_client.cooldown import Cooldown
from retrieval.redis_client.reads import RedisReader

_NEEDED_BY = "hot lists"
# Whoever dies while computing keeps others from it for so long; they serve what they have.
_LOCK_MS = 5_000


class RedisCache:
    """Reads and writes lists in Redis; where that fails it is as if there were no Redis.

    After a failure Redis is left alone for a second.

    Args:
        client: None: there is no Redis.
        timeout_s: Longest wait for an answer.
    """

    def __init__(self, client: Redis | None, timeout_s: float) -> None:
        self._client = client
        if client is not None:
            self._reads = RedisReader(client, _NEEDED_BY, timeout_s)
        self._timeout_s = timeout_s
        self._respite = Cooldown()
        self._token = secrets.token_bytes(16)

    async def read(self, key: ListKey) -> StoredList | None:
        """Returns what is kept; None: nothing, or Redis is away."""
        name = redis_key(key)
        found = await self._tried(lambda: self._reads.ask(("GET", name)))
        return unpack(found[0]) if found and found[0] is not None else None

    async def write(self, key: ListKey, data: bytes, keep_s: float, *, locked: bool) -> None:
        """Keeps a packed list; one that was locked here others may compute again."""
        name = redis_key(key)

        async def write(client: Redis) -> None:
            async with client.pipeline(transaction=False) as pipe:
                pipe.set(name, data, px=max(int(keep_s * 1_000), 1))
                if locked:
                    pipe.eval(DELETE_IF_EQUAL, 1, _lock(name), self._token)
                await pipe.execute()

        await self._ask(write)

    async def lock(self, key: ListKey) -> bool:
        """Tells others that a list is being computed here; False: it is, elsewhere."""
        lock = _lock(redis_key(key))
        held = await self._ask(
            lambda client: client.set(lock, self._token, nx=True, get=True, px=_LOCK_MS)
        )
        return held is None or held == self._token

    async def release(self, key: ListKey) -> None:
        """Lets others compute a list that was not computed here."""
        lock = _lock(redis_key(key))

        async def release(client: Redis) -> None:
            await client.eval(DELETE_IF_EQUAL, 1, lock, self._token)

        await self._ask(release)

    async def _ask(self, command: Callable[[Redis], Awaitable[Any]]) -> Any:
        async def within() -> Any:
            assert self._client is not None, "without one nothing is tried"
            async with asyncio.timeout(self._timeout_s), translate_redis_errors(_NEEDED_BY):
                return await command(self._client)

        return await self._tried(within)

    async def _tried(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Does it; None where there is no Redis, where it is left alone, or fails now."""
        if self._client is None or self._respite.reason:
            return None
        try:
            return await work()
        except (NotReady, TimeoutError) as error:
            self._respite.begin(str(error) or "no answer in time")
            metrics.hot_redis_failures.inc()
            return None


def _lock(name: str) -> str:
    return f"{name}:lock"

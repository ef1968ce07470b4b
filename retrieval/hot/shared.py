"""Hot lists in Redis, for all routers; and which of them computes one."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from nearline.errors import NotReady
from retrieval import metrics
from retrieval.hot.packing import Packed, name_of, unpack
from retrieval.hot.records import HotKey
from retrieval.redis_state import Redis, answering

_LEFT_ALONE_S = 1.0
# Whoever dies while computing keeps others from it for so long; they serve what they have.
_LOCK_MS = 5_000
_RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class SharedLists:
    """Reads and writes lists in Redis; where that fails it is as if there were no Redis.

    After a failure Redis is left alone for a second.

    Args:
        client: None: there is no Redis.
        timeout_s: Longest wait for an answer.
    """

    def __init__(self, client: Redis | None, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._again_s = 0.0
        self._token = secrets.token_bytes(16)

    async def read(self, key: HotKey) -> Packed | None:
        """Gives what is kept; None: nothing, or Redis is away."""
        data = await self._ask(lambda client: client.get(name_of(key)))
        return None if data is None else unpack(data)

    async def write(self, key: HotKey, data: bytes, keep_s: float) -> None:
        """Keeps a packed list, and lets others compute it again."""
        name = name_of(key)

        async def write(client: Redis) -> None:
            async with client.pipeline(transaction=False) as pipe:
                pipe.set(name, data, px=max(int(keep_s * 1_000), 1))
                pipe.eval(_RELEASE, 1, _lock(name), self._token)
                await pipe.execute()

        await self._ask(write)

    async def lock(self, key: HotKey) -> bool:
        """Tells others that a list is being computed here; False: it is, elsewhere."""
        lock = _lock(name_of(key))
        held = await self._ask(
            lambda client: client.set(lock, self._token, nx=True, get=True, px=_LOCK_MS)
        )
        return held is None or held == self._token

    async def release(self, key: HotKey) -> None:
        """Lets others compute a list that was not computed here."""
        lock = _lock(name_of(key))

        async def release(client: Redis) -> None:
            await client.eval(_RELEASE, 1, lock, self._token)

        await self._ask(release)

    async def _ask(self, command: Callable[[Redis], Awaitable[Any]]) -> Any:
        if self._client is None or time.monotonic() < self._again_s:
            return None
        try:
            async with asyncio.timeout(self._timeout_s), answering("hot lists"):
                return await command(self._client)
        except (NotReady, TimeoutError):
            self._again_s = time.monotonic() + _LEFT_ALONE_S
            metrics.hot_redis_failures.inc()
            return None


def _lock(name: str) -> str:
    return f"{name}:lock"

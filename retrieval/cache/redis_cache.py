"""The cache of lists in Redis, shared by all routers, with locks of computations."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
import zlib
from collections.abc import Awaitable, Callable
from itertools import accumulate
from typing import Any, NamedTuple, TypeAlias

from nearline.errors import FeedBlocked, InvalidRequest, NotReady
from retrieval.cache.cached_list import CachedList, ListKey
from retrieval.protocols import metrics, watermark
from retrieval.redis_client.connection import (
    DELETE_IF_EQUAL,
    Cooldown,
    Redis,
    RedisReader,
    translate_redis_errors,
)

_NEEDED_BY = "cached lists"
# A router that dies while it computes a list blocks the other routers for this long; they serve
# stale lists until then.
_LOCK_MS = 5_000
# The number is the version of the format.
_PREFIX = "nearline:hot:4"
_CHECKSUM_BYTES = 4
Reserve: TypeAlias = Callable[[int, float], Awaitable[None]]


class StoredList(NamedTuple):
    """A list in Redis, or the time (microseconds) at which its item did not exist."""

    cached: CachedList | None
    computed_us: int


def redis_key(key: ListKey) -> str:
    """Returns the Redis key of a list."""
    digest = hashlib.blake2b(repr(tuple(key)).encode(), digest_size=32).hexdigest()
    return f"{_PREFIX}:{key.collection}:{digest}"


def pack(stored: StoredList) -> bytes:
    """Encodes a list."""
    cached = stored.cached
    head: list[object] = [stored.computed_us]
    messages: list[bytes] = []
    if cached is not None:
        messages = list(cached.messages)
        sizes = list(map(len, messages))
        mark = cached.watermark.hex()
        head = [
            cached.computed_us,
            cached.cost_s,
            mark,
            cached.expires_us,
            cached.from_content,
            cached.is_live,
            cached.ids,
            sizes,
        ]
    # JSON escapes line breaks, so the first one ends the header.
    content = b"\n".join((json.dumps(head, separators=(",", ":")).encode(), b"".join(messages)))
    return zlib.crc32(content).to_bytes(_CHECKSUM_BYTES) + content


def unpack(data: bytes) -> StoredList | None:
    """Decodes a list; returns None if the data is damaged or has another format."""
    content = data[_CHECKSUM_BYTES:]
    if data[:_CHECKSUM_BYTES] != zlib.crc32(content).to_bytes(_CHECKSUM_BYTES):
        return None
    head, _, messages = content.partition(b"\n")
    try:
        computed_us, *rest = json.loads(head)
        if not rest:
            return StoredList(None, int(computed_us))
        cost_s, mark, expires_us, from_content, is_live, ids, sizes = rest
        ends = list(accumulate(sizes, initial=0))
        parts = tuple(map(messages.__getitem__, map(slice, ends, ends[1:])))
        if len(parts) != len(ids):
            return None
        cached = CachedList(
            tuple(ids),
            parts,
            int(computed_us),
            float(cost_s),
            bytes.fromhex(mark),
            int(expires_us),
            bool(from_content),
            bool(is_live),
        )
        watermark.decode_watermark(cached.watermark)
        return StoredList(cached, cached.computed_us)
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError, InvalidRequest):
        return None


class RedisCache:
    """Reads and writes lists in Redis; failures count as misses.

    After a failure, Redis is not called for a second.

    Args:
        client: Optional; None disables this cache.
        timeout_s: Longest wait for a reply.
        reserve: See `TieredCache`.
    """

    def __init__(self, client: Redis | None, timeout_s: float, reserve: Reserve) -> None:
        self._client = client
        self._reserve = reserve
        if client is not None:
            self._reads = RedisReader(client, _NEEDED_BY, timeout_s)
        self._timeout_s = timeout_s
        self._cooldown = Cooldown()
        self._token = secrets.token_bytes(16)

    async def read(self, key: ListKey) -> StoredList | None:
        """Returns a stored list, or None on a miss or failure."""
        name = redis_key(key)
        found = await self._attempt(lambda: self._reads.ask(("GET", name)))
        return unpack(found[0]) if found and found[0] is not None else None

    async def write(self, key: ListKey, data: bytes, keep_s: float, *, locked: bool) -> None:
        """Stores a packed list if it may be, and releases its lock if this router has it."""
        name = redis_key(key)

        async def write(client: Redis) -> None:
            async with client.pipeline(transaction=False) as pipe:
                with contextlib.suppress(FeedBlocked):
                    await self._reserve(len(data), keep_s)
                    pipe.set(name, data, px=max(int(keep_s * 1_000), 1))
                if locked:
                    pipe.eval(DELETE_IF_EQUAL, 1, _lock(name), self._token)
                await pipe.execute()

        await self._call(write)

    async def lock(self, key: ListKey) -> bool:
        """Locks the computation of a list; returns False if another router has the lock."""
        lock = _lock(redis_key(key))
        holder = await self._call(
            lambda client: client.set(lock, self._token, nx=True, get=True, px=_LOCK_MS)
        )
        return holder is None or holder == self._token

    async def release(self, key: ListKey) -> None:
        """Releases the lock of a list that was not computed."""
        lock = _lock(redis_key(key))

        async def release(client: Redis) -> None:
            await client.eval(DELETE_IF_EQUAL, 1, lock, self._token)

        await self._call(release)

    async def _call(self, command: Callable[[Redis], Awaitable[Any]]) -> Any:
        async def within() -> Any:
            assert self._client is not None, "not called without a client"
            async with asyncio.timeout(self._timeout_s), translate_redis_errors(_NEEDED_BY):
                return await command(self._client)

        return await self._attempt(within)

    async def _attempt(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Returns the result of some work; None without Redis, during a cooldown, or on failure."""
        if self._client is None or self._cooldown.reason:
            return None
        try:
            return await work()
        except (NotReady, TimeoutError) as error:
            self._cooldown.begin(str(error) or "no answer in time")
            metrics.hot_redis_failures.inc()
            return None


def _lock(name: str) -> str:
    return f"{name}:lock"

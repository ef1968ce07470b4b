"""Who writes live changes into a collection of Milvus: one router at a time, by a lock in Redis."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from typing import Final, Protocol

from nearline.errors import NotReady
from retrieval.redis_client.connection import DELETE_IF_EQUAL, Redis, translate_redis_errors

# Whoever dies while he writes keeps others from it for so long.
TTL_S = 8.0
_RENEW_S = 1.0
_ANSWER_S = 2.0
_NEEDED_BY = "writes of live changes into Milvus"
# Of a SET whose answer was lost it says that the lease is ours.
_ACQUIRE: Final = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RENEW: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_log = logging.getLogger(__name__)


class Lease(Protocol):
    """The right to write into a collection of Milvus."""

    @property
    def term(self) -> int:
        """Grows with each time that it is got: in between others may have written."""
        ...

    @property
    def remaining_s(self) -> float:
        """Seconds for which it is certainly ours; 0: it is not."""
        ...

    async def acquire(self) -> bool:
        """Gets it where nobody has it; tells whether it is ours now.

        Raises: NotReady: that cannot be known.
        """
        ...

    async def release(self) -> None:
        """Gives it up; where that cannot be told, it lapses."""
        ...


def lease_name(collection: str, milvus_collection: str, started_us: int) -> str:
    """Names the lock; the exports of one snapshot to two servers have different ones.

    Args:
        started_us: When the export began.
    """
    return f"nl:{{{collection}}}:milvus:{milvus_collection}:{started_us}"


class RedisLease:
    """A `Lease` in Redis, renewed in the background while it is held.

    Held by this process's monotonic clock from before it was asked for, so it ends here before it
    ends in Redis. A write is to be begun only where more is left than it may take.

    Args:
        client: Stays its owner's.
        name: See `lease_name`.
        ttl_s: How long it lasts without being renewed.
    """

    def __init__(self, client: Redis, name: str, ttl_s: float = TTL_S) -> None:
        self._client = client
        self._name = name
        self._ttl_s = ttl_s
        self._token = secrets.token_hex(16)
        self._expires_at = 0.0
        self._term = 0
        self._renewal: asyncio.Task[None] | None = None

    @property
    def term(self) -> int:
        """Grows with each time that it is got."""
        return self._term

    @property
    def remaining_s(self) -> float:
        """Seconds for which it is certainly ours."""
        return max(0.0, self._expires_at - time.monotonic())

    async def acquire(self) -> bool:
        """Gets it where nobody has it; see `Lease.acquire`."""
        if self.remaining_s:
            return True
        await self._stop_renewing()
        if await self._run(_ACQUIRE):
            self._term += 1
            self._renewal = asyncio.ensure_future(self._renew())
            _log.info("live changes are written to milvus from here", extra={"lease": self._name})
        return self.remaining_s > 0

    async def release(self) -> None:
        """Gives it up; see `Lease.release`."""
        await self._stop_renewing()
        held, self._expires_at = self.remaining_s > 0, 0.0
        if held:
            with contextlib.suppress(NotReady, TimeoutError):
                async with asyncio.timeout(_ANSWER_S), translate_redis_errors(_NEEDED_BY):
                    await self._client.eval(DELETE_IF_EQUAL, 1, self._name, self._token)

    async def _renew(self) -> None:
        while self.remaining_s:
            await asyncio.sleep(min(_RENEW_S, self._ttl_s / 4))
            # While Redis is away it goes on lapsing.
            with contextlib.suppress(NotReady):
                await self._run(_RENEW)
        _log.warning("live changes are no longer written from here", extra={"lease": self._name})

    async def _run(self, script: str) -> bool:
        started = time.monotonic()
        try:
            async with asyncio.timeout(_ANSWER_S), translate_redis_errors(_NEEDED_BY):
                granted = await self._client.eval(
                    script, 1, self._name, self._token, int(self._ttl_s * 1_000)
                )
        except TimeoutError as error:
            raise NotReady(
                f"Redis did not answer within {_ANSWER_S:g} s; {_NEEDED_BY} need it: check --redis,"
                " or try again"
            ) from error
        self._expires_at = started + self._ttl_s if granted else 0.0
        return bool(granted)

    async def _stop_renewing(self) -> None:
        renewal, self._renewal = self._renewal, None
        if renewal is not None:
            renewal.cancel()
            await asyncio.wait((renewal,))

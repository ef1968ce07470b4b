"""Lease: an exclusive right that Redis grants to one process at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from typing import Final, Protocol

from nearline.errors import NotReady
from retrieval.redis_client.connection import DELETE_IF_EQUAL, Redis, translate_redis_errors

# A holder that dies blocks the others for this long.
TTL_S = 8.0
_RENEW_S = 1.0
_ANSWER_S = 2.0
# Also succeeds if an earlier reply that granted the lease was lost.
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


def _clock_s() -> float:
    """Returns seconds since the start of the machine, those of a suspension included."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lease(Protocol):
    """An exclusive right."""

    @property
    def term(self) -> int:
        """Grows with each acquisition; others may have written in between."""
        ...

    @property
    def remaining_s(self) -> float:
        """Seconds for which the lease is certainly held; 0 if it is not held."""
        ...

    async def acquire(self) -> bool:
        """Acquires the lease if it is free; returns whether it is held now.

        Raises: NotReady: Redis does not answer.
        """
        ...

    async def release(self) -> None:
        """Releases the lease; if Redis does not answer, it expires."""
        ...


class RedisLease:
    """A `Lease` in Redis that is renewed in the background while it is held.

    The time of the lease counts from before each request, by a clock that includes suspensions of
    the machine. So the lease ends here before it ends in Redis. Start a write only if `remaining_s`
    exceeds its timeout.

    Args:
        client: Redis client; the caller closes it.
        name: Its key in Redis.
        needed_by: What needs it, in the plural, for errors and log lines.
        ttl_s: Lifetime without renewal, in seconds.
    """

    def __init__(self, client: Redis, name: str, needed_by: str, ttl_s: float = TTL_S) -> None:
        self._client = client
        self._name = name
        self._needed_by = needed_by
        self._ttl_s = ttl_s
        self._token = secrets.token_hex(16)
        self._expires_at = 0.0
        self._term = 0
        self._renewal: asyncio.Task[None] | None = None

    @property
    def term(self) -> int:
        """Grows with each acquisition."""
        return self._term

    @property
    def remaining_s(self) -> float:
        """Seconds for which the lease is certainly held."""
        return max(0.0, self._expires_at - _clock_s())

    async def acquire(self) -> bool:
        """Acquires the lease if it is free; see `Lease.acquire`."""
        if self.remaining_s:
            return True
        await self._stop_renewing()
        if await self._run(_ACQUIRE):
            self._term += 1
            self._renewal = asyncio.ensure_future(self._renew())
            _log.info("acquired a lease", extra={"lease": self._name, "for": self._needed_by})
        return self.remaining_s > 0

    async def release(self) -> None:
        """Releases the lease; see `Lease.release`."""
        await self._stop_renewing()
        held, self._expires_at = self.remaining_s > 0, 0.0
        if held:
            with contextlib.suppress(NotReady, TimeoutError):
                async with asyncio.timeout(_ANSWER_S), translate_redis_errors(self._needed_by):
                    await self._client.eval(DELETE_IF_EQUAL, 1, self._name, self._token)

    async def _renew(self) -> None:
        while self.remaining_s:
            await asyncio.sleep(min(_RENEW_S, self._ttl_s / 4))
            # While Redis is unreachable, the remaining time keeps running out.
            with contextlib.suppress(NotReady):
                await self._run(_RENEW)
        _log.warning("lost a lease", extra={"lease": self._name, "for": self._needed_by})

    async def _run(self, script: str) -> bool:
        started = _clock_s()
        try:
            async with asyncio.timeout(_ANSWER_S), translate_redis_errors(self._needed_by):
                granted = await self._client.eval(
                    script, 1, self._name, self._token, int(self._ttl_s * 1_000)
                )
        except TimeoutError as error:
            raise NotReady(
                f"Redis did not answer within {_ANSWER_S:g} s; {self._needed_by} need it: check "
                "--redis, or try again"
            ) from error
        self._expires_at = started + self._ttl_s if granted else 0.0
        return bool(granted)

    async def _stop_renewing(self) -> None:
        renewal, self._renewal = self._renewal, None
        if renewal is not None:
            renewal.cancel()
            await asyncio.wait((renewal,))

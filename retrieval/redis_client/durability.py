"""Whether what Redis was given lasts: refused beforehand where it cannot, and asked afterwards."""

from __future__ import annotations

import asyncio
import time

from nearline.errors import NotReady
from retrieval.redis_client.connection import UNKNOWN, Redis, RedisPersistence, read_persistence

NEEDED_BY = "live changes"
RETRY_AFTER_S = 2.0
_CHECK_EVERY_S = 1.0
_AGAIN = "whether it lasts is not known: try again with the same idempotency key"


def durability_problem(keeping: RedisPersistence) -> str:
    """Says why a Redis cannot keep a change log, and the remedy; empty where it can."""
    if keeping.appendonly == "no":
        return (
            "Redis would lose the changes when it restarts (appendonly no); set appendonly yes in "
            "its configuration"
        )
    if keeping.maxmemory_policy.startswith("allkeys-"):
        return (
            "Redis would drop changes when it is full (maxmemory-policy "
            f"{keeping.maxmemory_policy}); set maxmemory-policy noeviction"
        )
    if not keeping.waits and keeping.appendfsync != "always":
        return (
            f"Redis would lose the last changes with the power (appendfsync {keeping.appendfsync}, "
            "and no WAITAOF to ask it); set appendfsync always, or use Redis 7.2, Valkey 7.2 or "
            "newer"
        )
    return ""


def describe_durability(keeping: RedisPersistence) -> str:
    """Says how a Redis without a weakness keeps a change log."""
    if keeping.appendfsync == "always":
        return "every change is on disk before it is acknowledged (appendfsync always)"
    policy = "" if keeping.appendfsync == UNKNOWN else f"; appendfsync {keeping.appendfsync}"
    return f"a change is acknowledged once it is on disk, which may take a second (WAITAOF{policy})"


class Durability:
    """Promises that changes last, or refuses them.

    Args:
        client: Redis.
        replicas: How many replicas must have a change on disk, too.
        wait_s: How long to wait until a change is on disk.
    """

    def __init__(self, client: Redis, replicas: int = 0, wait_s: float = 3.0) -> None:
        self._client = client
        self._replicas = replicas
        self._wait_s = wait_s
        self._lock = asyncio.Lock()
        self._asked_at = -_CHECK_EVERY_S
        self._keeping: RedisPersistence | None = None

    @property
    def command(self) -> tuple[str | int, ...]:
        """The command that goes behind the changes, on the same connection.

        With appendfsync always it costs 0.05 ms; else up to the time between two fsyncs.
        """
        return "WAITAOF", 1, self._replicas, int(self._wait_s * 1_000)

    async def check(self) -> None:
        """Asks how Redis keeps things, where that was not asked within the last second.

        Raises: NotReady: it does not answer, or changes would not last; names the setting.
        """
        async with self._lock:
            if self._keeping is None or time.monotonic() >= self._asked_at + _CHECK_EVERY_S:
                self._keeping = await read_persistence(self._client, NEEDED_BY)
                self._asked_at = time.monotonic()
            found = durability_problem(self._keeping)
            if not found and self._replicas and not self._keeping.waits:
                found = (
                    f"Redis {self._keeping.version} has no WAITAOF to ask whether {self._replicas} "
                    "replicas have a change; use Redis 7.2, Valkey 7.2 or newer"
                )
        if found:
            raise NotReady(f"changes are not accepted: {found}", retry_after_s=RETRY_AFTER_S)

    def judge(self, reply: object) -> None:
        """Takes what Redis answered to `command`.

        Raises: NotReady: too few have the change on disk; whether it lasts is not known.
        """
        if isinstance(reply, Exception):
            if self._keeping is not None and not self._keeping.waits:
                return  # appendfsync always, on a server that is too old to be asked.
            self._keeping = None
            raise NotReady(
                f"the change was taken, but Redis does not promise to keep it ({reply}); {_AGAIN} "
                "once appendonly is yes",
                retry_after_s=RETRY_AFTER_S,
            )
        assert isinstance(reply, list)
        local, replicas = reply
        if local < 1 or replicas < self._replicas:
            raise NotReady(
                f"the change was taken, but after {self._wait_s:g} s it was on disk in "
                f"{local} of 1 Redis and {replicas} of {self._replicas} replicas; {_AGAIN}",
                retry_after_s=RETRY_AFTER_S,
            )

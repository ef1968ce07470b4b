"""Durability of changes in Redis: checked before a write, and confirmed after it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from nearline.errors import NotReady
from nearline.retry import SAME_KEY
from retrieval.redis_client.connection import Redis, is_replicated
from retrieval.redis_client.persistence import (
    NO_EVICTION,
    UNKNOWN,
    RedisPersistence,
    read_persistence,
)

NEEDED_BY = "live changes"
RETRY_AFTER_S = 2.0
_CHECK_EVERY_S = 1.0
_MISSING = (
    " once each primary has its replicas (with appendonly yes), or with --log-replicas 0, with "
    "which a failover may lose acknowledged changes"
)
_AGAIN = f"it may not be durable: {SAME_KEY}"


def durability_problem(persistence: RedisPersistence) -> str:
    """Returns why a Redis cannot store a change log, and the remedy; empty if it can."""
    if persistence.misaddressed:
        return (
            "this Redis is a node of a Redis Cluster, but its address names it as a single server; "
            "use redis+cluster://HOST:PORT"
        )
    if persistence.appendonly == "no":
        return (
            "Redis would lose the changes when it restarts (appendonly no); set appendonly yes in "
            "its configuration"
        )
    # volatile-* would evict what expires: users, sessions, leases, idempotency keys, dead letters.
    if persistence.evicts:
        return (
            "Redis would evict acknowledged data when it is full (maxmemory-policy "
            f"{persistence.maxmemory_policy}); set maxmemory-policy {NO_EVICTION}"
        )
    if not persistence.waits and persistence.appendfsync != "always":
        return (
            f"Redis would lose the last changes in a power failure (appendfsync "
            f"{persistence.appendfsync}, and no WAITAOF); set appendfsync always, or use Redis "
            "7.2, Valkey 7.2 or newer"
        )
    return ""


def describe_durability(persistence: RedisPersistence) -> str:
    """Describes how a suitable Redis makes a change log durable."""
    if persistence.appendfsync == "always":
        return "every change is on disk before it is acknowledged (appendfsync always)"
    policy = (
        "" if persistence.appendfsync == UNKNOWN else f"; appendfsync {persistence.appendfsync}"
    )
    return f"a change is acknowledged once it is on disk, which may take a second (WAITAOF{policy})"


class Durability:
    """Ensures that acknowledged changes are durable.

    replicas: Number of replicas that must have a change on disk, too.

    Args:
        client: Redis.
        replicas: None means 1 in a Redis Cluster and with Sentinel, where a replica takes over
            without asking whether it has all changes, and 0 with a single server.
        wait_s: Seconds to wait until a change is on disk.
    """

    def __init__(self, client: Redis, replicas: int | None = None, wait_s: float = 3.0) -> None:
        self._client = client
        self.replicas = int(is_replicated(client)) if replicas is None else replicas
        self._wait_s = wait_s
        self._lock = asyncio.Lock()
        self._checked_at = -_CHECK_EVERY_S
        self._persistence: RedisPersistence | None = None

    async def execute(self, pipeline: Any) -> tuple[list[Any], Any]:
        """Sends the changes of a pipeline, and waits until they are on disk.

        Waiting costs 0.05 ms with appendfsync always, and a few ms with replicas; otherwise up to
        the interval between two fsyncs.

        Returns: The replies, errors among them, and what `check_reply` takes.
        Raises: RedisError, OSError: no reply.
        """
        wait_ms = int(self._wait_s * 1_000)
        if self.replicas:
            # A replica says in time what it has received, but only once a second what it has on
            # disk, unless it is asked afterwards.
            pipeline.execute_command("WAIT", self.replicas, wait_ms // 3)
            wait_ms -= wait_ms // 3
        pipeline.execute_command("WAITAOF", 1, self.replicas, wait_ms)
        *replies, kept = await pipeline.execute(raise_on_error=False)
        return replies[: len(replies) - bool(self.replicas)], kept

    async def check(self) -> None:
        """Checks the persistence settings of Redis, at most once per second.

        Raises: NotReady: Redis does not answer, or changes would not be durable; names the setting.
        """
        async with self._lock:
            if self._persistence is None or time.monotonic() >= self._checked_at + _CHECK_EVERY_S:
                self._persistence = await read_persistence(self._client, NEEDED_BY)
                self._checked_at = time.monotonic()
            problem = durability_problem(self._persistence)
            if not problem and self.replicas and not self._persistence.waits:
                problem = (
                    f"Redis {self._persistence.version} has no WAITAOF to confirm changes in "
                    f"{self.replicas} replicas; use Redis 7.2, Valkey 7.2 or newer"
                )
        if problem:
            raise NotReady(f"changes are not accepted: {problem}", retry_after_s=RETRY_AFTER_S)

    def check_reply(self, reply: object) -> None:
        """Checks the second reply of `execute`.

        Raises: NotReady: too few servers have the change on disk; it may not be durable.
        """
        if isinstance(reply, Exception):
            if self._persistence is not None and not self._persistence.waits:
                return  # appendfsync always, on a server too old for WAITAOF.
            self._persistence = None
            raise NotReady(
                f"the change was accepted, but Redis does not guarantee durability ({reply}); "
                f"{_AGAIN} once appendonly is yes",
                retry_after_s=RETRY_AFTER_S,
            )
        assert isinstance(reply, list)
        local, replicas = reply
        if local < 1 or replicas < self.replicas:
            raise NotReady(
                f"the change was accepted, but after {self._wait_s:g} s it was on disk in "
                f"{local} of 1 Redis and {replicas} of {self.replicas} replicas; {_AGAIN}"
                + (_MISSING if replicas < self.replicas else ""),
                retry_after_s=RETRY_AFTER_S,
            )

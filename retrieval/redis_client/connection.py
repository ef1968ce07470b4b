"""The connection to Redis: what the services remember between calls, and the change log."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import hiredis
import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError, ResponseError

from nearline.errors import NotReady, SettingsError

_CONNECT_TIMEOUT_S = 0.5
# Memory of a conversation is worth a short wait, never the time of the answer itself.
_TIMEOUT_S = 0.5
_RETRIES = 1
_MAX_CONNECTIONS = 1_024
_RETRY_AFTER_S = 2.0
UNKNOWN = "unknown"
_PASSWORD = re.compile(r"//[^/@]*@")

# What Redis raises where it has not seen the script that a digest names.
UnknownScript: TypeAlias = redis.exceptions.NoScriptError
# What Redis raises where it is away, slow, or refuses.
REDIS_FAILURES = (RedisError, OSError, TimeoutError)

# Gives up a lock (KEYS[1]) that has our token (ARGV[1]): 1; that of somebody else stays: 0.
DELETE_IF_EQUAL: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
Redis: TypeAlias = "redis.asyncio.Redis"


def connect(url: str, *, timeout_s: float = _TIMEOUT_S, retries: int = _RETRIES) -> Redis:
    """Returns a client; it connects at its first command.

    Args:
        url: "redis://host:port/0", "rediss://…" or "unix://…".
        timeout_s: Longest wait for an answer.
        retries: How often a command that was not answered is sent again.
    Raises: SettingsError: not such an address.
    """
    try:
        return redis.asyncio.Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            # A command may so be run twice; who must not have that sees to it himself.
            retry=Retry(ExponentialBackoff(cap=0.1, base=0.02), retries),
            health_check_interval=15,
            max_connections=_MAX_CONNECTIONS,
            # With 3 the client takes a connection that the server has closed for a good one.
            protocol=2,
        )
    except ValueError as error:
        shown = _PASSWORD.sub("//…@", url)
        raise SettingsError(
            f"redis address {shown!r} cannot be read: {error}; use redis://HOST:PORT/0"
        ) from error


@contextlib.asynccontextmanager
async def translate_redis_errors(needed_by: str = "sessions and budgets") -> AsyncIterator[None]:
    """Turns what Redis raises within the block into our errors.

    Args:
        needed_by: What does not work without it; plural.
    Raises: NotReady: Redis is away, or answers an error.
    """
    task = asyncio.current_task()
    cancelled = task.cancelling() if task else 0
    try:
        yield
        # The client waits with asyncio.wait_for, which until Python 3.12 loses a cancellation that
        # comes as its command ends; who cancelled would wait for ever.
        if task and task.cancelling() > cancelled:
            raise asyncio.CancelledError
    except REDIS_FAILURES as error:
        raise not_ready_error(error, needed_by) from error


def not_ready_error(error: Exception, needed_by: str) -> NotReady:
    """Returns our error for what Redis raises, one of NO_ANSWER."""
    if isinstance(error, ResponseError):
        # It is there: full, read-only, or it wants a password.
        message = (
            f"Redis refuses ({error}); see what it is short of with nearline doctor --redis URL"
        )
    else:
        message = (
            f"Redis does not answer ({type(error).__name__}: {error}); {needed_by} need it: check "
            "--redis, or try again"
        )
    return NotReady(message, retry_after_s=_RETRY_AFTER_S)


class PinnedConnection:
    """A connection of a client that is kept for what is read all the time.

    A command by way of the client costs the event loop twice as much as by way of its connection.

    Args:
        client: Stays its owner's, whose end is the end of this.
    """

    def __init__(self, client: Redis) -> None:
        self._pool: Any = client.connection_pool
        self._kept: Any = None
        # Of the connection, while it is among those of the client.
        self._limit_s: float | None = None

    async def exchange(self, commands: Sequence[tuple[str, ...]]) -> list[Any]:
        """Sends commands that only read, together; gives their answers. Not for two at once.

        Has no limit of time: who asks brings one.

        Raises: RedisError, OSError: no answer, or a refusal.
        """
        kept, self._kept = self._kept, None
        if kept is not None:
            # It may have been closed at the other end since; then another one is as good.
            with contextlib.suppress(redis.exceptions.ConnectionError, OSError):
                return await self._on(kept, commands)
        fresh = await self._pool.get_connection()
        # Within one the client starts a task for each command.
        self._limit_s, fresh.socket_timeout = fresh.socket_timeout, None
        return await self._on(fresh, commands)

    async def _on(self, connection: Any, commands: Sequence[tuple[str, ...]]) -> list[Any]:
        try:
            # The stub takes one word for all of them.
            packed = [hiredis.pack_command(one) for one in commands]  # type: ignore[arg-type]
            await connection.send_packed_command(packed)
            answers = [await connection.read_response() for _ in commands]
        except BaseException:
            connection.socket_timeout = self._limit_s
            # Answers may be on their way that nobody would wait for.
            await connection.disconnect(nowait=True)
            await self._pool.release(connection)
            raise
        self._kept = connection
        return answers


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisPersistence:
    """How a Redis keeps what it is given; "unknown" where it does not say, as managed ones may.

    appendonly, appendfsync, maxmemory_policy: Its own settings of that name.
    waits: It can be asked to wait until a write is on disk (WAITAOF).
    """

    version: str
    appendonly: str
    appendfsync: str
    maxmemory_policy: str
    waits: bool

    @property
    def weakness(self) -> str:
        """What could be lost, and when; empty where nothing could, or nobody can tell."""
        if self.appendonly == "no":
            return "what it holds is lost when it restarts: set appendonly yes"
        if self.appendfsync not in ("always", UNKNOWN):
            return "the last second is lost with the power: set appendfsync always"
        if self.maxmemory_policy not in ("noeviction", UNKNOWN):
            return "it drops what it holds when it is full: set maxmemory-policy noeviction"
        return ""


async def read_persistence(
    client: Redis, needed_by: str = "sessions and budgets"
) -> RedisPersistence:
    """Asks a Redis how it keeps what it is given.

    Raises: NotReady: it does not answer.
    """
    async with translate_redis_errors(needed_by), client.pipeline(transaction=False) as pipe:
        pipe.ping()
        pipe.info()
        pipe.config_get("appendonly", "appendfsync", "maxmemory-policy")
        # Waits for nobody: tells whether there is such a command.
        pipe.execute_command("WAITAOF", 0, 0, 1)
        there, about, said, waits = await pipe.execute(raise_on_error=False)
        if isinstance(there, Exception):
            raise there
    # A managed one may keep these to itself.
    about, said = ({} if isinstance(one, Exception) else one for one in (about, said))
    appendonly = {0: "no", 1: "yes"}.get(about.get("aof_enabled"), UNKNOWN)
    return RedisPersistence(
        version=str(about.get("valkey_version") or about.get("redis_version") or UNKNOWN),
        appendonly=said.get("appendonly") or appendonly,
        appendfsync=said.get("appendfsync") or UNKNOWN,
        maxmemory_policy=said.get("maxmemory-policy") or UNKNOWN,
        waits=not isinstance(waits, Exception),
    )

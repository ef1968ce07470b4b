"""Connects to Redis: clients, errors, pinned connections, and short reads with a time limit."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, TypeAlias, cast

import hiredis
import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialBackoff
from redis.exceptions import AskError, ClusterDownError, ResponseError

from nearline.errors import NotReady
from retrieval.redis_client.cluster import CLUSTER_FAILURES, ClusterClient, cluster_of
from retrieval.redis_client.urls import parse_redis_url

# A router that connects many times at once may itself be late to notice.
_CONNECT_TIMEOUT_S = 5.0
# Conversation memory is worth a short wait, but must not take a share of the time for the answer.
_TIMEOUT_S = 0.5
_RETRIES = 1
_MAX_CONNECTIONS = 1_024
_RETRY_AFTER_S = 2.0

# Error of Redis if it does not know the script of a digest.
UnknownScript: TypeAlias = redis.exceptions.NoScriptError
# Raised by the client if Redis is unavailable, slow, or refuses a command.
REDIS_FAILURES = CLUSTER_FAILURES

# Releases a lock (KEYS[1]) if it has our token (ARGV[1]): returns 1; keeps any other: returns 0.
DELETE_IF_EQUAL: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
Redis: TypeAlias = "redis.asyncio.Redis"
Command: TypeAlias = tuple[str, ...]
_PAUSE_S = 1.0


def connect(url: str, *, timeout_s: float = _TIMEOUT_S, retries: int = _RETRIES) -> Redis:
    """Returns a client; it connects at its first command.

    The client of a Redis Cluster has the same methods. It never resends a command.

    Args:
        url: See `parse_redis_url`.
        timeout_s: Longest wait for a reply; also for a connection, there at most 5 s.
        retries: How often an unanswered command is resent.
    Raises: SettingsError: the address is invalid, or a password would travel unencrypted.
    """
    address = parse_redis_url(url)
    limits: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": min(timeout_s, _CONNECT_TIMEOUT_S),
        # With protocol 3, the client mistakes a connection closed by the server for a good one.
        "protocol": 2,
        # A command may therefore run twice; callers that must not repeat commands pass retries=0.
        "retry": Retry(ExponentialBackoff(cap=0.1, base=0.02), retries),
    }
    common = limits | {"health_check_interval": 15, "max_connections": _MAX_CONNECTIONS}
    options = common | address.options
    if address.kind == "cluster":
        return cast(Redis, ClusterClient(address.nodes, options))
    if address.kind == "sentinel":
        sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
            address.nodes, sentinel_kwargs=limits | address.sentinel_options, **options
        )
        client: _WatchedRedis = sentinel.master_for(address.service, redis_class=_WatchedRedis)
        client.watchers = sentinel.sentinels
        return client
    return redis.asyncio.Redis.from_url(url, **options)


class _WatchedRedis(redis.asyncio.Redis):
    """A server that Sentinel watches; closes the connections to the Sentinels, too."""

    watchers: Sequence[Redis] = ()

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        for one in self.watchers:
            await one.aclose()


def is_replicated(client: Redis) -> bool:
    """Returns whether another server takes over if one fails: a cluster, or with Sentinel."""
    return isinstance(client, ClusterClient | _WatchedRedis)


@contextlib.asynccontextmanager
async def translate_redis_errors(needed_by: str = "sessions and budgets") -> AsyncIterator[None]:
    """Translates errors of Redis within the block.

    Args:
        needed_by: The feature that needs Redis, as a plural noun.
    Raises: NotReady: Redis is unavailable or returned an error.
    """
    task = asyncio.current_task()
    cancelled = task.cancelling() if task else 0
    try:
        yield
        # The client uses asyncio.wait_for, which before Python 3.12 loses a cancellation that
        # arrives as the command ends; the canceller would wait forever.
        if task and task.cancelling() > cancelled:
            raise asyncio.CancelledError
    except REDIS_FAILURES as error:
        raise not_ready_error(error, needed_by) from error


def not_ready_error(error: Exception, needed_by: str) -> NotReady:
    """Returns the NotReady error for one of REDIS_FAILURES."""
    if isinstance(error, ResponseError):
        message = describe_refusal(error)
    else:
        message = (
            f"Redis does not answer ({type(error).__name__}: {error}); {needed_by} need it: check "
            "--redis, or try again"
        )
        if "Cluster mode is not enabled" in str(error):
            message = (
                "Redis is no cluster, but its address is redis+cluster://…; use redis://HOST:PORT/0"
            )
    return NotReady(message, retry_after_s=_RETRY_AFTER_S)


def describe_refusal(error: Exception) -> str:
    """Returns what is wrong with a Redis that runs but refuses a command, and the remedy."""
    if isinstance(error, AskError):
        return (
            f"Redis refuses (MOVED {error}): it is a node of a Redis Cluster, but its address "
            "names it as a single server; use redis+cluster://HOST:PORT. With such an address, its "
            "slots are moving: try again"
        )
    if isinstance(error, ClusterDownError):
        return (
            f"the Redis Cluster refuses ({error}): a node has failed and none has taken over, or "
            "too few primaries answer; start the missing nodes, and see valkey-cli --cluster check "
            "HOST:PORT"
        )
    # Full, read-only, or in need of a password.
    return f"Redis refuses ({error}); find the cause with nearline doctor --redis URL"


class PinnedConnection:
    """A dedicated connection for frequent reads.

    A command through the client costs the event loop twice as much as one through a connection.

    Args:
        client: Redis; the caller owns and closes it.
    """

    def __init__(self, client: Redis) -> None:
        self._pool: Any = client.connection_pool
        self._connection: Any = None
        # The timeout of the connection while it belongs to the pool.
        self._limit_s: float | None = None

    async def exchange(self, commands: Sequence[tuple[str, ...]]) -> list[Any]:
        """Sends read-only commands together and returns their replies; not concurrency-safe.

        Callers must set their own time limit.

        Raises: RedisError, OSError: no reply, or an error.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            # The server may have closed the connection since then; if so, use a new one.
            with contextlib.suppress(redis.exceptions.ConnectionError, OSError):
                return await self._on(connection, commands)
        fresh = await self._pool.get_connection()
        # With a timeout, the client starts a task for each command.
        self._limit_s, fresh.socket_timeout = fresh.socket_timeout, None
        return await self._on(fresh, commands)

    async def _on(self, connection: Any, commands: Sequence[tuple[str, ...]]) -> list[Any]:
        try:
            # The stub only accepts a single word.
            packed = [hiredis.pack_command(one) for one in commands]  # type: ignore[arg-type]
            await connection.send_packed_command(packed)
            replies = [await connection.read_response() for _ in commands]
        except BaseException:
            connection.socket_timeout = self._limit_s
            # Unread replies may still arrive on this connection.
            await connection.disconnect(nowait=True)
            await self._pool.release(connection)
            raise
        self._connection = connection
        return replies


class Cooldown:
    """A second without calls to a service that failed: each attempt would delay a request."""

    def __init__(self) -> None:
        self._until_s = 0.0
        self._reason = ""

    @property
    def reason(self) -> str:
        """The failure that started the current cool-down; empty if there is none."""
        return self._reason if time.monotonic() < self._until_s else ""

    def begin(self, reason: str) -> None:
        """Starts a cool-down of one second."""
        self._reason = reason
        self._until_s = time.monotonic() + _PAUSE_S


class RedisReader:
    """Sends read-only commands, those of each call together.

    Concurrent calls use separate connections, which are reused later.

    Args:
        client: Redis; the caller owns and closes it.
        needed_by: The feature that needs Redis, as a plural noun.
        timeout_s: Longest wait for the replies.
    """

    def __init__(self, client: Redis, needed_by: str, timeout_s: float) -> None:
        self._client = client
        self._cluster = cluster_of(client)
        self._needed_by = needed_by
        self._timeout_s = timeout_s
        self._idle: list[PinnedConnection] = []

    async def ask(self, *commands: Command) -> list[Any]:
        """Returns the replies to commands, in order.

        Raises: NotReady: Redis is unavailable, slow, or returned an error.
        """
        if self._cluster is not None:
            async with translate_redis_errors(self._needed_by), asyncio.timeout(self._timeout_s):
                async with self._cluster.pipeline() as pipe:
                    for words in commands:
                        pipe.execute_command(*words)
                    return list(await pipe.execute())
        connection = self._idle.pop() if self._idle else PinnedConnection(self._client)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await connection.exchange(commands)
        except REDIS_FAILURES as error:
            raise not_ready_error(error, self._needed_by) from error
        finally:
            self._idle.append(connection)

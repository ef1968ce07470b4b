"""Connects to Redis: settings, errors, pinned connections, and short reads with a time limit."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import hiredis
import redis.asyncio
import redis.exceptions
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError, ResponseError

from nearline.channel_security import ChannelSecurity
from nearline.errors import NotReady, SettingsError
from nearline.tls import is_loopback

# A router that connects many times at once may itself be late to notice.
_CONNECT_TIMEOUT_S = 5.0
# Conversation memory is worth a short wait, but must not take a share of the time for the answer.
_TIMEOUT_S = 0.5
_RETRIES = 1
_MAX_CONNECTIONS = 1_024
_RETRY_AFTER_S = 2.0
UNKNOWN = "unknown"
# The only maxmemory-policy with which a full Redis drops nothing.
NO_EVICTION: Final = "noeviction"
# Where a password may stand in an address, also one that is not encoded as it must be.
_PASSWORD = re.compile(r"(?<=//).*(?=@)|(?<=[?&]password=)[^&]*")

# Error of Redis if it does not know the script of a digest.
UnknownScript: TypeAlias = redis.exceptions.NoScriptError
# Raised by the client if Redis is unavailable, slow, or refuses a command.
REDIS_FAILURES = (RedisError, OSError, TimeoutError)

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

    Args:
        url: "redis://host:port/0", "rediss://…" (TLS) or "unix://…". What it leaves out of
            ssl_ca_certs, ssl_certfile and ssl_keyfile are NEARLINE_TLS_CA, NEARLINE_TLS_CERT and
            NEARLINE_TLS_KEY.
        timeout_s: Longest wait for a reply; also for a connection, there at most 5 s.
        retries: How often an unanswered command is resent.
    Raises: SettingsError: the address is invalid, or a password would travel unencrypted.
    """
    security = ChannelSecurity.choose("", None, os.environ)
    shown = _PASSWORD.sub("…", url)
    try:
        tls = _tls_options(url, security)
        return redis.asyncio.Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=min(timeout_s, _CONNECT_TIMEOUT_S),
            # A command may therefore run twice; callers that must not repeat commands pass
            # retries=0.
            retry=Retry(ExponentialBackoff(cap=0.1, base=0.02), retries),
            health_check_interval=15,
            max_connections=_MAX_CONNECTIONS,
            # With protocol 3, the client mistakes a connection closed by the server for a good one.
            protocol=2,
            **tls,
        )
    except ValueError as error:
        # The error may name what it takes for a port, which is perhaps part of a password.
        why = f" ({error})" if shown == url else ""
        raise SettingsError(
            f"redis address {shown!r} is invalid{why}; use redis://HOST:PORT/0, with %2F for a / "
            "in a password"
        ) from None


def _tls_options(url: str, security: ChannelSecurity) -> dict[str, Any]:
    """Returns the options of an encrypted connection; those of the URL take priority.

    Raises: SettingsError: a password would travel unencrypted to another machine. ValueError: the
        URL is malformed.
    """
    if urlsplit(url).scheme == "rediss":
        files = security.tls
        return {
            "ssl_ca_certs": files.authorities or None,
            "ssl_certfile": files.certificate or None,
            "ssl_keyfile": files.key or None,
            "ssl_min_version": ssl.TLSVersion.TLSv1_2,
        }
    options = parse_url(url)
    host = options.get("host", "localhost")
    if "path" not in options and options.get("password") and not security.insecure:
        if not is_loopback(host):
            raise SettingsError(
                f"the password of Redis would travel unencrypted to {host}: use "
                "rediss://, or set NEARLINE_INSECURE=true if a network of your own protects it"
            )
    return {}


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
        # Redis is running, but full, read-only, or needs a password.
        message = f"Redis refuses ({error}); find the cause with nearline doctor --redis URL"
    else:
        message = (
            f"Redis does not answer ({type(error).__name__}: {error}); {needed_by} need it: check "
            "--redis, or try again"
        )
    return NotReady(message, retry_after_s=_RETRY_AFTER_S)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisPersistence:
    """The persistence settings of a Redis; "unknown" if it hides them, as managed services may.

    appendonly, appendfsync, maxmemory_policy: The Redis settings of the same name.
    waits: Whether WAITAOF can wait until a write is on disk.
    """

    version: str
    appendonly: str
    appendfsync: str
    maxmemory_policy: str
    waits: bool

    @property
    def weakness(self) -> str:
        """What data can be lost, and the remedy; empty if none can, or if that is unknown."""
        if self.appendonly == "no":
            return "all data is lost when it restarts: set appendonly yes"
        if self.appendfsync not in ("always", UNKNOWN):
            return "a power failure loses the last second: set appendfsync always"
        if self.maxmemory_policy not in (NO_EVICTION, UNKNOWN):
            return f"it evicts data when it is full: set maxmemory-policy {NO_EVICTION}"
        return ""


async def read_persistence(
    client: Redis, needed_by: str = "sessions and budgets"
) -> RedisPersistence:
    """Reads the persistence settings of a Redis.

    Raises: NotReady: it does not answer.
    """
    async with translate_redis_errors(needed_by), client.pipeline(transaction=False) as pipe:
        pipe.ping()
        pipe.info()
        pipe.config_get("appendonly", "appendfsync", "maxmemory-policy")
        # Returns immediately: shows whether the command exists.
        pipe.execute_command("WAITAOF", 0, 0, 1)
        pong, info, config, waits = await pipe.execute(raise_on_error=False)
        if isinstance(pong, Exception):
            raise pong
    # A managed service may hide these.
    info, config = ({} if isinstance(one, Exception) else one for one in (info, config))
    appendonly = {0: "no", 1: "yes"}.get(info.get("aof_enabled"), UNKNOWN)
    return RedisPersistence(
        version=str(info.get("valkey_version") or info.get("redis_version") or UNKNOWN),
        appendonly=config.get("appendonly") or appendonly,
        appendfsync=config.get("appendfsync") or UNKNOWN,
        maxmemory_policy=config.get("maxmemory-policy") or info.get("maxmemory_policy") or UNKNOWN,
        waits=not isinstance(waits, Exception),
    )


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
        self._needed_by = needed_by
        self._timeout_s = timeout_s
        self._idle: list[PinnedConnection] = []

    async def ask(self, *commands: Command) -> list[Any]:
        """Returns the replies to commands, in order.

        Raises: NotReady: Redis is unavailable, slow, or returned an error.
        """
        connection = self._idle.pop() if self._idle else PinnedConnection(self._client)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await connection.exchange(commands)
        except REDIS_FAILURES as error:
            raise not_ready_error(error, self._needed_by) from error
        finally:
            self._idle.append(connection)

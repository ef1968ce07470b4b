"""The connection to Redis, which holds all that this service remembers between calls."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypeAlias

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError, ResponseError

from nearline.errors import NotReady, SettingsError

# Memory of a conversation is worth a short wait, never the time of the answer itself.
_TIMEOUT_S = 0.5
_RETRIES = 1
_RETRY_AFTER_S = 2.0
_UNKNOWN = "unknown"
_PASSWORD = re.compile(r"//[^/@]*@")

Redis: TypeAlias = "redis.asyncio.Redis"


def connect(url: str) -> Redis:
    """Gives a client; it connects at its first command.

    Args:
        url: "redis://host:port/0", "rediss://…" or "unix://…".
    Raises: SettingsError: not such an address.
    """
    try:
        return redis.asyncio.Redis.from_url(
            url,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            # A command may so be run twice; who must not have that sees to it himself.
            retry=Retry(ExponentialBackoff(cap=0.1, base=0.02), _RETRIES),
            health_check_interval=15,
        )
    except ValueError as error:
        shown = _PASSWORD.sub("//…@", url)
        raise SettingsError(
            f"redis address {shown!r} cannot be read: {error}; use redis://HOST:PORT/0"
        ) from error


@contextlib.asynccontextmanager
async def answering() -> AsyncIterator[None]:
    """Turns what Redis raises within the block into our errors.

    Raises: NotReady: Redis is away, or answers an error.
    """
    try:
        yield
    except ResponseError as error:
        # It is there: full, read-only, or it wants a password.
        raise NotReady(
            f"Redis refuses ({error}); see what it is short of with nearline doctor --redis URL",
            retry_after_s=_RETRY_AFTER_S,
        ) from error
    except (RedisError, OSError, TimeoutError) as error:
        raise NotReady(
            f"Redis does not answer ({type(error).__name__}: {error}); sessions and budgets need "
            "it: check --redis, or try again",
            retry_after_s=_RETRY_AFTER_S,
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """How a Redis keeps what it is given; "unknown" where it does not say, as managed ones may.

    appendonly, appendfsync, maxmemory_policy: Its own settings of that name.
    """

    version: str
    appendonly: str
    appendfsync: str
    maxmemory_policy: str

    @property
    def weakness(self) -> str:
        """What could be lost, and when; empty where nothing could, or nobody can tell."""
        if self.appendonly == "no":
            return "what it holds is lost when it restarts: set appendonly yes"
        if self.appendfsync not in ("always", _UNKNOWN):
            return "the last second is lost with the power: set appendfsync always"
        if self.maxmemory_policy not in ("noeviction", _UNKNOWN):
            return "sessions are dropped when it is full: set maxmemory-policy noeviction"
        return ""


async def ask_keeping(client: Redis) -> Keeping:
    """Asks a Redis how it keeps what it is given.

    Raises: NotReady: it does not answer.
    """
    async with answering():
        await client.ping()
        about = await client.info("server")
        try:
            said = await client.config_get("appendonly", "appendfsync", "maxmemory-policy")
        except ResponseError:
            said = {}
    return Keeping(
        version=str(about.get("valkey_version") or about.get("redis_version") or _UNKNOWN),
        appendonly=said.get("appendonly") or _UNKNOWN,
        appendfsync=said.get("appendfsync") or _UNKNOWN,
        maxmemory_policy=said.get("maxmemory-policy") or _UNKNOWN,
    )

"""Short, frequent reads from Redis with a strict time limit, and the pause after a failure."""

from __future__ import annotations

import asyncio
import time
from typing import Any, TypeAlias

from retrieval.redis_client.connection import (
    REDIS_FAILURES,
    PinnedConnection,
    Redis,
    not_ready_error,
)

Command: TypeAlias = tuple[str, ...]
_PAUSE_S = 1.0


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

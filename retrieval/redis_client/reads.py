"""Reads that every list waits for: short, frequent, and never worth a long wait."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

from retrieval.redis_client.connection import (
    REDIS_FAILURES,
    PinnedConnection,
    Redis,
    not_ready_error,
)

Command: TypeAlias = tuple[str, ...]


class RedisReader:
    """Sends commands that only read, each caller's together.

    Who comes while others wait gets a connection of its own, which is kept for the next.

    Args:
        client: Redis, which stays its owner's.
        needed_by: What does not work without it; plural.
        timeout_s: Longest wait for an answer.
    """

    def __init__(self, client: Redis, needed_by: str, timeout_s: float) -> None:
        self._client = client
        self._needed_by = needed_by
        self._timeout_s = timeout_s
        self._idle: list[PinnedConnection] = []

    async def ask(self, *commands: Command) -> list[Any]:
        """Returns the answers to some commands, in order.

        Raises: NotReady: Redis is away, slow, or answers an error.
        """
        line = self._idle.pop() if self._idle else PinnedConnection(self._client)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await line.exchange(commands)
        except REDIS_FAILURES as error:
            raise not_ready_error(error, self._needed_by) from error
        finally:
            self._idle.append(line)

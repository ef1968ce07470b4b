"""The capacity of the queue: what is set, but no more than a share of the memory of Redis.

Redis also holds live changes, sessions and interactions. A queue that filled it would stop these.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Final

from index_builder.ingest.records import QueueLimits
from index_builder.ingest.script_runner import open_pipeline
from retrieval.redis_client.connection import Redis

_log = logging.getLogger(__name__)
# Shares of maxmemory: sources in the queue, and sources of dead letters.
QUEUED_SHARE: Final = 1 / 2
DEAD_SHARE: Final = 1 / 8
_READ_EVERY_S = 30.0


class Capacity:
    """Reads the memory limit of Redis, and keeps the limits of the queue below it.

    Args:
        client: Redis.
        limits: The limits as set.
    """

    def __init__(self, client: Redis, limits: QueueLimits) -> None:
        self._client = client
        self._set = limits
        self._found = limits
        self._read_at_s = -_READ_EVERY_S

    async def limits(self) -> QueueLimits:
        """Returns the limits in force. Raises: NotReady: Redis is unavailable."""
        if time.monotonic() >= self._read_at_s + _READ_EVERY_S:
            async with open_pipeline(self._client) as pipe:
                pipe.info("memory")
                [memory] = await pipe.execute(raise_on_error=False)
            self._read_at_s = time.monotonic()
            # A managed service may hide it; then no limit is known, as with 0.
            hidden = isinstance(memory, Exception)
            maxmemory = 0 if hidden else int(memory.get("maxmemory") or 0)
            found = clamped(self._set, maxmemory)
            if found != self._found and found != self._set:
                _log.warning(
                    "limits of the queue lowered to a share of the maxmemory of Redis; set "
                    "--max-queued-bytes and --max-dead-letter-bytes lower, or maxmemory higher",
                    extra={
                        "maxmemory": maxmemory,
                        "max_queued_bytes": found.bytes,
                        "max_dead_letter_bytes": found.dead_bytes,
                    },
                )
            self._found = found
        return self._found


def clamped(limits: QueueLimits, maxmemory: int) -> QueueLimits:
    """Returns limits that leave room in a Redis with this maxmemory; 0 means no limit."""
    if not maxmemory:
        return limits
    return replace(
        limits,
        bytes=min(limits.bytes, int(maxmemory * QUEUED_SHARE)),
        dead_bytes=min(limits.dead_bytes, int(maxmemory * DEAD_SHARE)),
    )

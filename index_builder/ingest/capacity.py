"""The capacity of the queue: what is set, but no more than a share of the memory of Redis.

Redis also holds live changes, sessions and interactions. A queue that filled it would stop these.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Final

from index_builder.ingest import keys
from index_builder.ingest.records import QueueLimits
from index_builder.ingest.script_runner import NEEDED_BY
from retrieval.redis_client.connection import Redis, translate_redis_errors
from retrieval.redis_client.servers import read_info

_log = logging.getLogger(__name__)
# Shares of maxmemory: units and dead letters, sources of dead letters, and jobs with their results.
# Results may take twice their share until the oldest are dropped; so the queue has less than half.
QUEUED_SHARE: Final = 1 / 4
DEAD_SHARE: Final = 1 / 16
RESULT_SHARE: Final = 1 / 16
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
            maxmemory = await self._read_maxmemory()
            self._read_at_s = time.monotonic()
            found = clamped(self._set, maxmemory)
            if found != self._found and found != self._set:
                _log.warning(
                    "limits of the queue lowered to a share of the maxmemory of Redis; set "
                    "--max-queued-bytes, --max-dead-letter-bytes and --max-result-bytes lower, or "
                    "maxmemory higher",
                    extra={
                        "maxmemory": maxmemory,
                        "max_queued_bytes": found.bytes,
                        "max_dead_letter_bytes": found.dead_bytes,
                        "max_result_bytes": found.result_bytes,
                    },
                )
            self._found = found
        return self._found

    async def _read_maxmemory(self) -> int:
        """Returns the maxmemory of the server that has the queue; 0 if there is none."""
        async with translate_redis_errors(NEEDED_BY):
            infos = await read_info(self._client, "memory", keys.META)
        # A managed service may hide it.
        return max(int(one.get("maxmemory") or 0) for one in infos.values())


def clamped(limits: QueueLimits, maxmemory: int) -> QueueLimits:
    """Returns limits that leave room in a Redis with this maxmemory; 0 means no limit."""
    if not maxmemory:
        return limits
    return replace(
        limits,
        bytes=min(limits.bytes, int(maxmemory * QUEUED_SHARE)),
        dead_bytes=min(limits.dead_bytes, int(maxmemory * DEAD_SHARE)),
        result_bytes=min(limits.result_bytes, int(maxmemory * RESULT_SHARE)),
    )

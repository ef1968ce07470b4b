"""Keeps the histories of users who come back, so that they are not read from a shard each time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable
from typing import TypeVar

from retrieval.cache.byte_cache import ByteCache
from retrieval.protocols.candidates import StoredHistory
from retrieval.search.candidates import read_history
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext

# Memory of one event besides its id, and of one entry.
_EVENT_BYTES, _ENTRY_BYTES = 28, 800
_R = TypeVar("_R")


class HistoryCache:
    """Histories that snapshots were trained on, those read last; a snapshot never changes.

    Args:
        max_bytes: Memory of the histories, at most.
    """

    def __init__(self, max_bytes: int = 32 << 20) -> None:
        self._found: ByteCache[tuple[str, str, str], StoredHistory] = ByteCache(max_bytes, math.inf)

    async def read_alongside(
        self,
        other: Awaitable[_R],
        served: ServedCollection,
        user_id: str,
        context: RequestContext,
    ) -> tuple[_R, StoredHistory]:
        """Returns the result of `other`, and the history of a user; see `read_history`.

        Both are read at the same time, unless the history is at hand.
        """
        key = (served.name, served.snapshot_id, user_id)
        if (kept := self._found.get(key)) is not None:
            return await other, kept
        if served.learned is None or not user_id:
            return await other, await read_history(served, user_id, context)
        result, found = await asyncio.gather(other, read_history(served, user_id, context))
        if not context.failures:
            size = _ENTRY_BYTES + len(found.ids.content) + _EVENT_BYTES * len(found.ids)
            self._found.put(key, found, size)
        return result, found

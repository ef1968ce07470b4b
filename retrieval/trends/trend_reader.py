"""Reads the trends of a collection, for the lists of a router."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from nearline.errors import NotReady
from retrieval.redis_client.connection import Cooldown, Redis, RedisReader
from retrieval.trends.trend_lists import (
    LISTS,
    NEEDED_BY,
    NO_TRENDS,
    VERSION,
    TrendItems,
    TrendLists,
    trend_keys,
)

# Lists are read again in the background after the first time, and waited for after the second.
_FRESH_S, _STALE_S = 1.0, 3.0
# Lists are better without trends than late.
_TIMEOUT_S = 0.1


class TrendReader:
    """The trends of one collection; those that cannot be read are the last known, or none.

    Args:
        client: Redis of users and sessions; the caller closes it.
        collection: The collection.
    """

    def __init__(self, client: Redis, collection: str) -> None:
        self._keys = trend_keys(collection)
        self._reads = RedisReader(client, NEEDED_BY, _TIMEOUT_S)
        self._cooldown = Cooldown()
        self._lists = NO_TRENDS
        self._version = b""
        self._read_s = 0.0
        self._reading: asyncio.Task[None] | None = None

    @property
    def lists(self) -> TrendLists:
        """The lists as they were last read; reads them again in the background after a second."""
        if time.monotonic() >= self._read_s + _FRESH_S and self._reading is None:
            self._reading = asyncio.create_task(self.refresh())
        return self._lists

    async def read(self) -> TrendLists:
        """Returns the lists as they were at most three seconds ago, if Redis answers in time."""
        lists = self.lists
        if self._reading is None or time.monotonic() < self._read_s + _STALE_S:
            return lists
        await asyncio.shield(self._reading)
        return self._lists

    async def refresh(self) -> None:
        """Reads the lists, if they have changed."""
        try:
            (version,) = await self._ask("HGET", self._keys.lists, VERSION)
            if version != self._version:
                # None if they are gone: upkeep has been away for long.
                (fields,) = await self._ask("HMGET", self._keys.lists, VERSION, LISTS)
                self._version, self._lists = fields[0], TrendLists.decode(fields[1])
        except NotReady:
            pass  # The last ones stay.
        finally:
            self._read_s, self._reading = time.monotonic(), None

    async def related(self, item_ids: Sequence[str]) -> list[TrendItems]:
        """Returns what goes with each of some items, at least one."""
        try:
            (found,) = await self._ask("HMGET", self._keys.related, *item_ids)
        except NotReady:
            found = [None] * len(item_ids)
        return [TrendItems.decode(one) for one in found]

    async def _ask(self, *command: str) -> Sequence[Any]:
        if reason := self._cooldown.reason:
            raise NotReady(reason)
        try:
            return await self._reads.ask(command)
        except NotReady as error:
            self._cooldown.begin(error.message)
            raise

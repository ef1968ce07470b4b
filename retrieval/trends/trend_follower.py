"""Follows the interactions of a collection, and publishes what is popular and goes together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any, NamedTuple

from nearline.store.snapshot import PARTITIONS
from retrieval.redis_client.connection import Redis, translate_redis_errors
from retrieval.redis_client.lease import RedisLease
from retrieval.redis_client.streams import read_streams
from retrieval.trends.interaction_window import (
    MOST_ROWS,
    UNTRAINED,
    InteractionWindow,
    Row,
    Trained,
)
from retrieval.trends.trend_lists import NEEDED_BY, VERSION, TrendItems, trend_keys
from retrieval.users.keys import log_key, marks_key, owner_digest
from retrieval.users.log_entries import decode_logged_interaction

# Interactions count for this long after they were logged; the log keeps them a little longer.
_WINDOW_MS = 28 * 86_400_000
_EXPIRY_S = 60.0
# Entries of a partition in one reply; 64 partitions parse in 80 milliseconds.
_ENTRIES = 32
# Interactions that are added at once.
_BATCH = 20_000
# Seconds of a round for the lists of related items: of those with new visitors; and of all others,
# whose visitors may have visited something else since then. All at once after a start.
_URGENT_S, _OTHERS_S = 0.3, 0.05
_LISTS_AT_ONCE = 64
# Items that have a list; a list takes about 600 bytes in Redis.
_MOST_LISTS = 50_000
# The lists outlive upkeep for this long.
_TTL_S = 86_400
_TTL_RENEWAL_S = 600.0


class Progress(NamedTuple):
    """How far a follower is.

    lag_s: Seconds from the oldest interaction that this round read to its end; 0 if there was none.
    rows: Interactions in the window.
    """

    lag_s: float
    rows: int


class TrendFollower:
    """Follows one collection, while no other process does.

    Everything is derived from the log of interactions: a new follower reads it from the beginning,
    and publishes what an older one would.

    Args:
        client: Redis of users and sessions; must not retry commands automatically.
        collection: The collection.
        limit: Interactions to keep in memory, at most.
    """

    def __init__(self, client: Redis, collection: str, limit: int = MOST_ROWS) -> None:
        self._client = client
        self._keys = trend_keys(collection)
        self._logs = [log_key(collection, partition) for partition in range(PARTITIONS)]
        self._marks = frozenset(marks_key(collection, one) for one in range(PARTITIONS))
        self._lease = RedisLease(client, self._keys.lease, NEEDED_BY)
        self._limit = limit
        self._trained = UNTRAINED
        self._term = self._most_rows = 0
        self._begin()

    async def advance(self, trained: Trained) -> Progress | None:
        """Reads what is new, and publishes what has changed.

        Args:
            trained: What the models of the current snapshot counted already.
        Returns: None if another process follows the collection.
        Raises: NotReady: Redis does not answer; call it again.
        """
        if not await self._lease.acquire():
            return None
        if self._lease.term != self._term or trained.kind_weights != self._trained.kind_weights:
            self._term = self._lease.term
            self._begin()
        self._changed |= trained != self._trained
        self._trained = trained
        try:
            oldest_ms = await self._read()
            await self._expire()
        except BaseException:
            # Part of it may be done.
            self._begin()
            raise
        try:
            await self._publish()
        except BaseException:
            # Part of it may be written; what was read stays.
            self._forget_written()
            raise
        lag_s = max(0.0, time.time() - oldest_ms / 1_000) if oldest_ms else 0.0
        progress = Progress(lag_s, len(self._window))
        self._most_rows = max(self._most_rows, progress.rows)
        if self._window.scale > 1 and progress.rows < self._most_rows / 4:
            # Owners that were left out may fit by now.
            self._begin()
        return progress

    async def close(self) -> None:
        """Lets another process follow the collection."""
        await self._lease.release()

    def _forget_written(self) -> None:
        """Publishes everything again."""
        # Digests of the lists in Redis, the oldest first; None before they are known.
        self._listed: dict[str, bytes] | None = None
        self._version = b""
        # Whether the interactions are others than those of the lists, and of the last sweep.
        self._changed = self._unswept = True

    def _begin(self) -> None:
        self._forget_written()
        self._window = InteractionWindow(self._limit)
        self._most_rows = 0
        self._after = dict.fromkeys((*self._logs, *self._marks), "0-0")
        # When the last deleted interaction of an owner was logged, in milliseconds.
        self._erased: dict[int, int] = {}
        self._swept = False
        # Items whose list of related items has to be computed, those first in line first.
        self._urgent: dict[str, None] = {}
        self._others: list[str] = []
        self._expiry_s = self._ttl_renewal_s = 0.0

    async def _read(self) -> int:
        """Adds all new entries to the window; returns when the first of them was logged, or 0."""
        oldest_ms = 0
        rows: list[Row] = []
        erased: dict[int, int] = {}
        left = dict(self._after)
        while left:
            async with translate_redis_errors(NEEDED_BY):
                found = await read_streams(self._client, left, _ENTRIES, 0)
            left = {}
            for name, entries in found:
                stream = name.decode()
                self._after[stream] = entries[-1][0].decode()
                if len(entries) == _ENTRIES:
                    left[stream] = self._after[stream]
                if stream in self._marks:
                    erased |= {int(one[b"owner"], 16): int(one[b"upto"]) for _, one in entries}
                    continue
                for entry_id, fields in entries:
                    arrived_ms = int(entry_id.partition(b"-")[0])
                    oldest_ms = min(oldest_ms or arrived_ms, arrived_ms)
                    if (row := self._decode(arrived_ms, fields)) is not None:
                        rows.append(row)
            if len(rows) >= _BATCH or not left:
                await self._apply(erased, rows)
                rows, erased = [], {}
        return oldest_ms

    def _decode(self, arrived_ms: int, fields: Mapping[bytes, bytes]) -> Row | None:
        """Returns an interaction; None if training would leave its kind out."""
        one, weights = decode_logged_interaction(fields), self._trained.kind_weights
        weight = weights.get(one.kind, 0.0) if weights else 1.0
        if weight <= 0:
            return None
        owner = int.from_bytes(owner_digest(one.user_id, one.session_id))
        weight = weight if one.weight is None else one.weight
        return Row(owner, one.item_id, one.time_us, arrived_ms, weight)

    async def _apply(self, erased: Mapping[int, int], rows: Sequence[Row]) -> None:
        # An entry may be read after the mark of its deletion.
        self._erased |= erased
        kept = [one for one in rows if one.arrived_ms > self._erased.get(one.owner, 0)]

        def apply() -> set[str]:
            items = self._window.erase(erased) if erased else set()
            return items | self._window.add(kept) if kept else items

        if erased or kept:
            self._note(await asyncio.to_thread(apply))

    async def _expire(self) -> None:
        if time.monotonic() < self._expiry_s:
            return
        self._expiry_s = time.monotonic() + _EXPIRY_S
        before_ms = time.time_ns() // 1_000_000 - _WINDOW_MS
        self._note(await asyncio.to_thread(self._window.expire, before_ms))
        self._erased = {one: ms for one, ms in self._erased.items() if ms >= before_ms}

    def _note(self, items: Iterable[str]) -> None:
        """Notes items whose visitors have changed; those that wait already keep their turn."""
        for one in sorted(items):
            self._changed = self._unswept = True
            # At the start that is all of them, and most have their list from before.
            if self._version:
                self._urgent.setdefault(one)

    async def _publish(self) -> None:
        """Writes the lists that have changed since they were last written."""
        listed = self._listed
        if listed is None:
            async with translate_redis_errors(NEEDED_BY):
                names: Any = await self._client.hkeys(self._keys.related)
            listed = self._listed = {name.decode(errors="replace"): b"" for name in names}
        fields: Mapping[str, bytes] = {}
        if self._changed:
            fields = await asyncio.to_thread(lambda: self._window.trends(self._trained).encode())
            self._changed = False
            if fields[VERSION] == self._version:
                fields = {}
        written: dict[str, bytes] = {}
        removed: list[str] = []
        async for item, related in self._related(listed):
            data = related.encode()
            digest = blake2b(data, digest_size=8).digest()
            before = listed.pop(item, None)
            if related.ids:
                listed[item] = digest
                if before != digest:
                    written[item] = data
            elif before is not None:
                removed.append(item)
        for item in list(islice(listed, max(0, len(listed) - _MOST_LISTS))):
            del listed[item]
            removed.append(item)
        await self._write(fields, written, removed)

    async def _related(self, listed: Collection[str]) -> AsyncIterator[tuple[str, TrendItems]]:
        """Yields the lists of related items for which this round has time."""
        until_s = time.monotonic() + _URGENT_S
        while self._urgent and time.monotonic() < until_s:
            batch = list(islice(self._urgent, _LISTS_AT_ONCE))
            for item, related in (await asyncio.to_thread(self._window.related, batch)).items():
                del self._urgent[item]
                yield item, related
        if self._unswept and not self._others:
            self._unswept = False
            items = await asyncio.to_thread(self._window.most_visited, _MOST_LISTS)
            # Taken from the end: the most visited ones come last, so they are removed last if there
            # are too many.
            self._others = [*items, *(set(listed) - set(items))]
        until_s = time.monotonic() + (_OTHERS_S if self._swept else _URGENT_S)
        while self._others and time.monotonic() < until_s:
            batch = self._others[-_LISTS_AT_ONCE:]
            del self._others[-_LISTS_AT_ONCE:]
            for item, related in (await asyncio.to_thread(self._window.related, batch)).items():
                yield item, related
        self._swept |= not self._others

    async def _write(
        self, fields: Mapping[str, bytes], related: Mapping[str, bytes], removed: Sequence[str]
    ) -> None:
        is_due = time.monotonic() >= self._ttl_renewal_s
        if not (fields or related or removed or is_due):
            return
        lists, of_items = self._keys.lists, self._keys.related
        async with (
            translate_redis_errors(NEEDED_BY),
            self._client.pipeline(transaction=False) as pipe,
        ):
            if removed:
                pipe.hdel(of_items, *removed)
            for item, data in related.items():
                pipe.hset(of_items, item, data)
            if fields:
                # At once: a reader of the new version must find the new lists.
                mapping: dict[Any, Any] = dict(fields)
                pipe.hset(lists, mapping=mapping)
            for key in (lists, of_items):
                pipe.expire(key, _TTL_S)
            await pipe.execute()
        self._version = fields.get(VERSION, self._version)
        self._ttl_renewal_s = time.monotonic() + _TTL_RENEWAL_S

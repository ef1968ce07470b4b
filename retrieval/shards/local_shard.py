"""A shard in this process: the snapshot's part, live changes beside it, and threads that search."""

from __future__ import annotations

import heapq
from asyncio import Future
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from itertools import islice
from operator import attrgetter
from typing import NamedTuple, Protocol

from nearline.contract import Filter, PayloadField
from retrieval.index.filtering.planner import Matches
from retrieval.index.segment import Segment
from retrieval.index.thread_pool import ThreadPool
from retrieval.index.union import join_counts, join_hits
from retrieval.live.view import LiveState
from retrieval.protocols.shard import (
    AppliedState,
    ShardCounts,
    ShardHits,
    ShardItems,
    ShardOptions,
    ShardQueries,
)
from retrieval.protocols.watermark import Watermark
from retrieval.shards.admission import ShardAdmission
from retrieval.shards.search_lane import SearchQueue

# Searches in one thread of a batch run one after another: short batches keep the wait even, and
# the event loop busy while the next one runs (16 cost an eighth of the rate at 8 callers).
_MAX_BATCH = 4
# Where one product of matrices looks through all rows: 50,000 x 384 take 8 ms for 4 queries, 12 for
# 16 and 36 for 64.
_MAX_EXACT_BATCH = 64


class Closable(Protocol):
    """Files that are mapped, or the like."""

    def close(self) -> None:
        """Releases them."""
        ...


class _ShardState(NamedTuple):
    """A shard at one moment: its parts, what live changes brought first, and what of each is alive.

    applied: None where no change log is followed.
    """

    parts: Sequence[tuple[Segment, Matches | None]]
    applied: AppliedState | None


class LocalShard:
    """One shard of one snapshot, searched in a thread pool.

    Args:
        snapshot_id: Snapshot it belongs to; requests for another one are refused.
        number: Shard number, for errors.
        base: What the snapshot has.
        threads: Threads to search in; may be shared with other shards.
        scanners: Threads that do what was asked for exactly, so that nobody waits behind it; None:
            the same.
        files: What `close` closes.
        observe: Told the size of every batch.
    """

    has_words = True

    def __init__(
        self,
        snapshot_id: str,
        number: int,
        base: Segment,
        *,
        threads: ThreadPool,
        scanners: ThreadPool | None = None,
        files: Sequence[Closable] = (),
        observe: Callable[[float], None] = lambda size: None,
    ) -> None:
        self.base = base
        self._gate = ShardAdmission(snapshot_id, f"shard {number}")
        self._threads = threads
        self._files = files
        together = base.index.describe().exact_together
        exact_batch = _MAX_EXACT_BATCH if together else _MAX_BATCH
        self._near = SearchQueue(self.search_now, threads, max_batch=_MAX_BATCH, observe=observe)
        self._exact = SearchQueue(
            self.search_now, scanners or threads, max_batch=exact_batch, observe=observe
        )
        self.chunks = base.items.chunks
        self.documents = base.items.documents

    def attach(self, live: LiveState) -> None:
        """Lets live changes take part in whatever is asked from now on."""
        self._gate.live = live

    def search(
        self,
        snapshot_id: str,
        queries: ShardQueries,
        options: ShardOptions,
        deadline: float | None = None,
    ) -> Future[Sequence[ShardHits]]:
        """Searches; see `Shard.search`. A search that began runs to its end."""
        lane = self._exact if options.exact else self._near
        return self._gate.ask(lane.coalescer, snapshot_id, queries, options, deadline)

    async def fetch(
        self,
        snapshot_id: str,
        ids: Sequence[str],
        payload: frozenset[PayloadField],
        deadline: float | None = None,
        chunks: Sequence[int] = (),
        min_watermark: Watermark | None = None,
        filter: Filter | None = None,
    ) -> ShardItems:
        """Reads items; see `Shard.fetch`."""
        await self._gate.reach(snapshot_id, min_watermark, deadline)

        def read() -> ShardItems:
            now = self._now()
            found = [part.fetch(ids, payload, chunks, filter, alive) for part, alive in now.parts]
            # An item is in one part at most.
            each = (item for same in zip(*found, strict=True) for item in same)
            return ShardItems([item for item in each if item is not None], now.applied)

        fetched: ShardItems = await self._threads.call(read)
        return fetched

    async def scan(
        self,
        snapshot_id: str,
        after_id: str,
        limit: int,
        filter: Filter | None,
        payload: frozenset[PayloadField],
        deadline: float | None = None,
        min_watermark: Watermark | None = None,
    ) -> ShardItems:
        """Reads items in id order; see `Shard.scan`."""
        await self._gate.reach(snapshot_id, min_watermark, deadline)

        def read() -> ShardItems:
            now = self._now()
            found = [part.scan(after_id, filter, payload, alive) for part, alive in now.parts]
            merged = heapq.merge(*found, key=attrgetter("id"))
            return ShardItems(list(islice(merged, limit)), now.applied)

        fetched: ShardItems = await self._threads.call(read)
        return fetched

    async def count(
        self,
        snapshot_id: str,
        filter: Filter | None,
        fields: Sequence[str],
        deadline: float | None = None,
        min_watermark: Watermark | None = None,
    ) -> ShardCounts:
        """Counts items; see `Shard.count`."""
        await self._gate.reach(snapshot_id, min_watermark, deadline)

        def read() -> ShardCounts:
            now = self._now()
            counts = [part.count(filter, fields, alive) for part, alive in now.parts]
            return replace(reduce(join_counts, counts), applied=now.applied)

        counted: ShardCounts = await self._threads.call(read)
        return counted

    async def ready(self, snapshot_id: str) -> bool:
        """Returns whether this is that snapshot: what is held is loaded."""
        return self._gate.opens(snapshot_id)

    def search_now(self, queries: ShardQueries, options: ShardOptions) -> list[ShardHits]:
        """Searches in the calling thread, from the state at this moment."""
        now = self._now()
        *live, (base, alive) = now.parts
        results = base.search(queries, options, alive)
        for part, part_alive in live:
            others = part.search(queries, options, part_alive)
            results = [
                join_hits(one, other, options) for one, other in zip(results, others, strict=True)
            ]
        if now.applied is not None:
            for hits in results:
                hits.applied = now.applied
        return results

    def close(self) -> None:
        """Releases the files; no search may be running.

        Whoever asks later is told so: without its live changes a shard would show what was deleted.
        """
        self._gate.closed = True
        for each in self._files:
            each.close()
        self._gate.live = None
        self._near.close()
        self._exact.close()

    def _now(self) -> _ShardState:
        # Read once: what is hidden and what stands for it change together.
        live = self._gate.live
        if live is None:
            return _ShardState([(self.base, None)], None)
        view = live.view
        base = (self.base, view.alive)
        if view.part is None:
            return _ShardState([base], view.applied)
        return _ShardState([(view.part, view.part_alive), base], view.applied)

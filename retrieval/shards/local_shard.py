"""A shard in this process: its segment of the snapshot, live changes, and search threads."""

from __future__ import annotations

import asyncio
import heapq
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from itertools import chain, islice, takewhile
from operator import attrgetter
from typing import NamedTuple, Protocol

from nearline.errors import Unsupported
from retrieval.behaviour.behaviour_shard import BehaviourShard
from retrieval.behaviour.history import UserVectors
from retrieval.index.filtering.planner import Matches
from retrieval.index.highlights import highlight_items, with_texts
from retrieval.index.segment import Segment
from retrieval.index.suggestions import suggestion_order
from retrieval.index.thread_pool import ThreadPool
from retrieval.index.union import join_counts, join_hits
from retrieval.live.progress import LiveState
from retrieval.protocols.candidates import (
    CandidatesRequest,
    HistoryRequest,
    ShardCandidates,
    StoredHistory,
    UseCandidates,
    merge_candidates,
)
from retrieval.protocols.compute_threads import Stopped, stoppable
from retrieval.protocols.shard import (
    CountRequest,
    ItemsRequest,
    ScanRequest,
    ShardCounts,
    ShardHits,
    ShardItems,
    ShardOptions,
    ShardQueries,
    ShardSuggestions,
    SuggestRequest,
)
from retrieval.protocols.watermark import AppliedState
from retrieval.shards.admission import ShardAdmission
from retrieval.shards.batcher import Batcher

# One thread runs the searches of a batch one after another. Short batches keep waiting times even,
# and keep the event loop busy while the next batch runs (batches of 16 reduced the rate of 8
# callers by an eighth).
_MAX_BATCH = 4
# A request with many queries needs the answers to all. In parts of 16, its steps in Python take a
# quarter of the time, and others wait 5 ms longer for a thread.
_MAX_PART = 16
# Applies where one matrix product scans all rows: 50,000 x 384 numbers take 8 ms for 4 queries, 12
# ms for 16 and 36 ms for 64.
_MAX_EXACT_BATCH = 64


class Closable(Protocol):
    """A mapped file or another resource to release."""

    def close(self) -> None:
        """Releases the resource."""
        ...


class _ShardState(NamedTuple):
    """A shard at one moment: its segments, each with its live rows (None means all).

    The segment of live changes, if there is one, precedes that of the snapshot.
    applied: Progress of live changes; None if no change log is followed.
    """

    segments: Sequence[tuple[Segment, Matches | None]]
    applied: AppliedState | None


class LocalShard:
    """One shard of one snapshot, searched in a thread pool.

    Args:
        snapshot_id: Snapshot of the shard; requests for any other snapshot are refused.
        number: Shard number, for errors.
        base: Segment of the snapshot.
        threads: Threads to search in; may be shared with other shards.
        scanners: Threads for exact searches by the CPU, scans and counts, so that other searches
            need not wait for them; None uses `threads`.
        behaviour: Behaviour of the items; None if the snapshot was built without interactions.
        files: Resources that `close` releases.
        observe: Called with the size of every batch.
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
        behaviour: BehaviourShard | None = None,
        files: Sequence[Closable] = (),
        observe: Callable[[float], None] = lambda size: None,
    ) -> None:
        self.base = base
        self.chunks = base.items.chunks
        self.documents = base.items.documents
        self._admission = ShardAdmission(snapshot_id, f"shard {number}")
        self._threads = threads
        self._scanners = scanners or threads
        self._behaviour = behaviour
        # All shards of the snapshot in this process, by number.
        self.peers: Mapping[int, LocalShard] = {number: self}
        self._files = files
        together = base.on_gpu or base.index.describe().exact_together
        self._approximate: Batcher[ShardOptions, ShardHits] = Batcher(
            partial(self._start, exact=False),
            slots=self._threads.count,
            max_batch=_MAX_EXACT_BATCH if base.on_gpu else _MAX_BATCH,
            max_part=_MAX_EXACT_BATCH if base.on_gpu else _MAX_PART,
            observe=observe,
        )
        self._exact: Batcher[ShardOptions, ShardHits] = Batcher(
            partial(self._start, exact=True),
            slots=(self._threads if base.on_gpu else self._scanners).count,
            max_batch=_MAX_EXACT_BATCH if together else _MAX_BATCH,
            observe=observe,
        )

    def attach(self, live: LiveState) -> None:
        """Includes live changes in all requests from now on."""
        self._admission.live = live

    def search(
        self,
        snapshot_id: str,
        queries: ShardQueries,
        options: ShardOptions,
        deadline: float | None = None,
    ) -> Future[Sequence[ShardHits]]:
        """Searches; see `Shard.search`. Once begun, only its filter can end early."""
        batcher = self._exact if options.exact else self._approximate
        if snapshot_id == self._admission.admitted and options.min_watermark is None:
            # Nearly every request takes this path: the snapshot is admitted, and there is no wait.
            return batcher.submit(queries, options, deadline)
        return self._admission.submit(batcher, snapshot_id, queries, options, deadline)

    async def fetch(
        self, snapshot_id: str, request: ItemsRequest, deadline: float | None = None
    ) -> ShardItems:
        """Reads items; see `Shard.fetch`."""
        await self._admission.admit(snapshot_id, request.min_watermark, deadline)

        wanted = request if request.highlight is None else with_texts(request)

        def read(stopped: Stopped) -> ShardItems:
            state = self._state()
            found = [
                segment.fetch(
                    wanted.ids, wanted.payload, wanted.chunks, wanted.filter, alive, stopped
                )
                for segment, alive in state.segments
            ]
            # An item is alive in at most one segment.
            if request.highlight is None:
                items = (item for same in zip(*found, strict=True) for item in same)
                return ShardItems([item for item in items if item is not None], state.applied)
            places = [
                next((at for at, item in enumerate(same) if item is not None), 0)
                for same in zip(*found, strict=True)
            ]
            kept, highlights = highlight_items(
                [found[at][number] for number, at in enumerate(places)],
                request,
                [state.segments[at][0].matcher for at in places],
                stopped,
            )
            return ShardItems(kept, state.applied, highlights)

        # Words are looked for in all texts, which takes longer than to read them.
        threads = self._threads if request.highlight is None else self._scanners
        fetched: ShardItems = await threads.call_stoppable(read)
        return fetched

    async def scan(
        self, snapshot_id: str, request: ScanRequest, deadline: float | None = None
    ) -> ShardItems:
        """Reads items in id order; see `Shard.scan`."""
        await self._admission.admit(snapshot_id, request.min_watermark, deadline)

        def read(stopped: Stopped) -> ShardItems:
            state = self._state()
            found = [
                segment.scan(request.after_id, request.filter, request.payload, alive)
                for segment, alive in state.segments
            ]
            merged = heapq.merge(*found, key=attrgetter("id"))
            wanted = takewhile(lambda _: not stopped(), islice(merged, request.limit))
            return ShardItems(list(wanted), state.applied)

        fetched: ShardItems = await self._scanners.call_stoppable(read)
        return fetched

    async def count(
        self, snapshot_id: str, request: CountRequest, deadline: float | None = None
    ) -> ShardCounts:
        """Counts items; see `Shard.count`."""
        await self._admission.admit(snapshot_id, request.min_watermark, deadline)

        def read(stopped: Stopped) -> ShardCounts:
            state = self._state()
            counts = [
                segment.count(request.filter, request.fields, alive, stopped)
                for segment, alive in state.segments
            ]
            return replace(reduce(join_counts, counts), applied=state.applied)

        counted: ShardCounts = await self._scanners.call_stoppable(read)
        return counted

    async def suggest(
        self, snapshot_id: str, request: SuggestRequest, deadline: float | None = None
    ) -> ShardSuggestions:
        """Completes a title; see `Shard.suggest`."""
        await self._admission.admit(snapshot_id, request.min_watermark, deadline)

        def read(stopped: Stopped) -> ShardSuggestions:
            state = self._state()
            found = [
                segment.suggest(request.text, request.limit, request.filter, alive)
                for segment, alive in state.segments
            ]
            merged = sorted(chain.from_iterable(found), key=suggestion_order)[: request.limit]
            # Live changes have the vocabulary of the snapshot.
            base, _ = state.segments[-1]
            return ShardSuggestions(merged, base.correction(request.text), state.applied)

        suggested: ShardSuggestions = await self._scanners.call_stoppable(read)
        return suggested

    @property
    def server(self) -> int:
        """Names the shards of the snapshot in this process."""
        return id(self.peers)

    async def candidates(
        self,
        snapshot_id: str,
        request: CandidatesRequest,
        deadline: float | None = None,
        also: Sequence[int] = (),
        then: UseCandidates | None = None,
    ) -> ShardCandidates:
        """Finds candidates; see `Shard.candidates`."""
        shards = [self, *(self.peers[number] for number in also)]
        for one in shards:
            await one._admission.admit(snapshot_id, request.min_watermark, deadline)

        def find(stopped: Stopped) -> ShardCandidates:
            memo: UserVectors = {}
            found = merge_candidates([one._find(request, memo) for one in shards if not stopped()])
            if then is not None and not stopped():
                then(found)
            return found

        found: ShardCandidates = await self._threads.call_stoppable(find)
        return found

    def _find(self, request: CandidatesRequest, memo: UserVectors) -> ShardCandidates:
        state, allowed = self._state(), None
        if request.filter is not None:
            base, alive = state.segments[-1]
            allowed = base.may_match(request.filter, alive)
        found = self._required_behaviour().find(request, allowed, memo)
        return found._replace(applied=state.applied)

    async def history(
        self, snapshot_id: str, request: HistoryRequest, deadline: float | None = None
    ) -> StoredHistory:
        """Reads the history of a user; see `Shard.history`."""
        await self._admission.admit(snapshot_id, None, deadline)
        behaviour = self._required_behaviour()
        # In a thread: the tables are mapped, and pages that nobody read before come from disk.
        found: StoredHistory = await self._threads.call_stoppable(
            lambda stopped: behaviour.history(request)
        )
        return found

    async def ready(self, snapshot_id: str) -> bool:
        """Returns whether the shard holds this snapshot."""
        return snapshot_id == self._admission.admitted

    def search_now(
        self,
        queries: ShardQueries,
        options: ShardOptions,
        stopped: Stopped = lambda: False,
    ) -> list[ShardHits]:
        """Searches the current state in the calling thread, until `stopped` returns True."""
        state = self._state()
        *live, (base, alive) = state.segments
        results = base.search(queries, options, alive)
        for segment, segment_alive in live:
            if stopped():
                break
            others = segment.search(queries, options, segment_alive)
            results = [
                join_hits(one, other, options) for one, other in zip(results, others, strict=True)
            ]
        if state.applied is not None:
            for hits in results:
                hits.applied = state.applied
        return results

    def close(self) -> None:
        """Releases the files; no search may be running.

        Later requests are refused, because without live changes the shard would show deleted items.
        """
        self._admission.close()
        for file in self._files:
            file.close()
        self._admission.live = None
        # Batchers and peers refer to the shard. Without these cycles, all memory is freed with the
        # last reference, instead of at the next run of the garbage collector.
        self._approximate = self._exact = Batcher(_start_nothing, slots=0, max_batch=1)
        self.peers = {}

    def _state(self) -> _ShardState:
        # One read of the view: hidden rows and their replacements change together.
        live = self._admission.live
        if live is None:
            return _ShardState([(self.base, None)], None)
        view = live.view
        base = (self.base, view.alive)
        if view.part is None:
            return _ShardState([base], view.applied)
        return _ShardState([(view.part, view.part_alive), base], view.applied)

    def _required_behaviour(self) -> BehaviourShard:
        if self._behaviour is None:
            raise Unsupported(
                "the snapshot was built without interactions, so it has no candidates by "
                "behaviour; build it with --interactions FILE"
            )
        return self._behaviour

    def _start(self, *, exact: bool) -> None:
        scans = exact and not self.base.scans_on_gpu
        threads = self._scanners if scans else self._threads
        threads.start(partial(self._run, asyncio.get_running_loop(), exact=exact))

    def _run(self, loop: AbstractEventLoop, *, exact: bool) -> None:
        """Answers batches in a search thread until none is waiting."""
        batcher = self._exact if exact else self._approximate
        while (batch := batcher.take()) is not None:
            results, error = None, None
            try:
                with stoppable(batch.abandoned):
                    results = self.search_now(batch.queries, batch.options, batch.abandoned)
            except Exception as caught:
                error = caught
            loop.call_soon_threadsafe(batcher.finish, batch, results, error)


def _start_nothing() -> None:
    """Takes the place of the runners of a closed shard."""

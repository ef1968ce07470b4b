"""A shard on shard servers, with one or more replicas."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable, Sequence

from nearline.tracing.spans import carry_one_of, end_span, set_facts
from retrieval.protocols.candidates import (
    CandidatesRequest,
    HistoryRequest,
    ShardCandidates,
    StoredHistory,
    UseCandidates,
)
from retrieval.protocols.quantiles import RecentQuantiles
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
from retrieval.shards.batcher import Batcher
from retrieval.shards.client import ShardClient, ShardKey
from retrieval.shards.replicas.hedged_calls import HedgedCalls
from retrieval.shards.replicas.replica import Replica

# While this many calls per replica are running, queries wait and share the next call. Two calls
# keep a server busy while a reply is in transit; with more, each call gets fewer queries (four are
# a tenth slower).
_CALLS_IN_FLIGHT = 2
_MAX_BATCH = 64


class ReplicatedShard:
    """One shard of a collection, on every server that holds a copy; a `Shard`.

    Queries are batched into calls before a replica is chosen. So waiting queries never wait for a
    slow replica, and retries and hedges cost per call, not per query.

    Args:
        replicas: The servers; shared with the other shards on them.
        collection: Collection name.
        number: Shard number.
        observe: Called with the size of every batch.
    """

    has_words = True

    def __init__(
        self,
        replicas: Sequence[Replica[ShardClient]],
        collection: str,
        number: int,
        *,
        observe: Callable[[float], None] = lambda size: None,
    ) -> None:
        self._collection = collection
        self._number = number
        # Topologies may name them in any order.
        self._server = tuple(sorted(one.address for one in replicas))
        self._calls = HedgedCalls(replicas, collection, number)
        self._search_latencies = RecentQuantiles((0.95,), window=256, every=32)
        self._fetch_latencies = RecentQuantiles((0.95,), window=256, every=32)
        self._candidate_latencies = RecentQuantiles((0.95,), window=256, every=32)
        self._runners: set[Future[None]] = set()
        self._batcher: Batcher[tuple[str, ShardOptions], ShardHits] = Batcher(
            self._start,
            slots=_CALLS_IN_FLIGHT * len(replicas),
            max_batch=_MAX_BATCH,
            observe=observe,
        )

    def search(
        self,
        snapshot_id: str,
        queries: ShardQueries,
        options: ShardOptions,
        deadline: float | None = None,
    ) -> Future[Sequence[ShardHits]]:
        """Searches; see `Shard.search`.

        Queries with a watermark are not batched: a call that waits for live changes would block a
        slot that all other queries need.
        """
        if options.min_watermark is not None:
            return asyncio.ensure_future(self._search(snapshot_id, queries, options, deadline))
        return self._batcher.submit(queries, (snapshot_id, options), deadline)

    async def fetch(
        self, snapshot_id: str, request: ItemsRequest, deadline: float | None = None
    ) -> ShardItems:
        """Reads items; see `Shard.fetch`."""
        key = self._key(snapshot_id)
        return await self._calls.call(
            key,
            lambda client: client.fetch(key, request, deadline),
            self._fetch_latencies,
            waits=request.min_watermark is not None,
        )

    async def scan(
        self, snapshot_id: str, request: ScanRequest, deadline: float | None = None
    ) -> ShardItems:
        """Lists items; see `Shard.scan`. Never hedged, since a scan is a lot of work."""
        key = self._key(snapshot_id)
        return await self._calls.call(
            key,
            lambda client: client.scan(key, request, deadline),
        )

    async def count(
        self, snapshot_id: str, request: CountRequest, deadline: float | None = None
    ) -> ShardCounts:
        """Counts items; see `Shard.count`. Never hedged."""
        key = self._key(snapshot_id)
        return await self._calls.call(key, lambda client: client.count(key, request, deadline))

    async def suggest(
        self, snapshot_id: str, request: SuggestRequest, deadline: float | None = None
    ) -> ShardSuggestions:
        """Completes a title; see `Shard.suggest`."""
        key = self._key(snapshot_id)
        return await self._calls.call(key, lambda client: client.suggest(key, request, deadline))

    @property
    def server(self) -> tuple[str, ...]:
        """Names the shards that have the same replicas."""
        return self._server

    async def candidates(
        self,
        snapshot_id: str,
        request: CandidatesRequest,
        deadline: float | None = None,
        also: Sequence[int] = (),
        then: UseCandidates | None = None,
    ) -> ShardCandidates:
        """Finds candidates; see `Shard.candidates`."""
        key = self._key(snapshot_id)
        return await self._calls.call(
            key,
            lambda client: client.candidates(key, request, deadline, also),
            self._candidate_latencies,
            waits=request.min_watermark is not None,
        )

    async def history(
        self, snapshot_id: str, request: HistoryRequest, deadline: float | None = None
    ) -> StoredHistory:
        """Reads the history of a user; see `Shard.history`."""
        key = self._key(snapshot_id)
        return await self._calls.call(
            key, lambda client: client.history(key, request, deadline), self._fetch_latencies
        )

    async def ready(self, snapshot_id: str) -> int:
        """Counts the ready replicas; see `ready_replicas`."""
        return self.ready_replicas(snapshot_id)

    def ready_replicas(self, snapshot_id: str) -> int:
        """Counts the reachable replicas that hold the snapshot, by their last known status."""
        key = self._key(snapshot_id)
        return sum(replica.holds(key) for replica in self._calls.replicas)

    def _key(self, snapshot_id: str) -> ShardKey:
        return ShardKey(self._collection, snapshot_id, self._number)

    def _start(self) -> None:
        runner = asyncio.ensure_future(self._run())
        # The event loop keeps only weak references to tasks.
        self._runners.add(runner)
        runner.add_done_callback(self._runners.discard)

    async def _run(self) -> None:
        """Sends batches until none is waiting."""
        while (batch := self._batcher.take()) is not None:
            # This task was started by one request, and works for others.
            span = carry_one_of((one.carried for one in batch.entries), "shard")
            failure = ""
            try:
                snapshot_id, options = batch.options
                results = await self._search(snapshot_id, batch.queries, options, batch.deadline)
                self._batcher.finish(batch, results)
            except Exception as error:
                failure = type(error).__name__
                self._batcher.finish(batch, None, error)
            finally:
                if span is not None:
                    set_facts(span, {"shard": self._number, "queries": batch.queries.count})
                    end_span(span, failure)

    async def _search(
        self,
        snapshot_id: str,
        queries: ShardQueries,
        options: ShardOptions,
        deadline: float | None,
    ) -> Sequence[ShardHits]:
        key = self._key(snapshot_id)
        return await self._calls.call(
            key,
            lambda client: client.search(key, queries, options, deadline),
            self._search_latencies,
            waits=options.min_watermark is not None,
        )

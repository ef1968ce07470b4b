"""A shard on servers, with one replica or several; a `Shard`."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable, Sequence

from nearline.contract import Filter, PayloadField
from nearline.quantiles import RecentQuantiles
from retrieval.protocols.shard import (
    ShardCounts,
    ShardHits,
    ShardItems,
    ShardOptions,
    ShardQueries,
)
from retrieval.protocols.watermark import Watermark
from retrieval.shards.batcher import Batch, Batcher
from retrieval.shards.client import ShardClient, ShardKey
from retrieval.shards.replicas.hedged_calls import HedgedCalls
from retrieval.shards.replicas.replica import Replica

# While this many calls per replica are on their way, queries wait and share the next call. Two
# keep a server busy while an answer travels; more make the calls smaller (four: a tenth slower).
_CALLS_IN_FLIGHT = 2
_MAX_BATCH = 64


class ReplicatedShard:
    """One shard of a collection, on every server that holds a copy.

    Queries share calls before a replica is chosen, so that those which wait never wait for one
    that is slow, and retries and hedges cost per call and not per query.

    Args:
        replicas: The servers; shared with their other shards.
        collection: Collection name.
        number: Shard number.
        observe: Told the size of every batch.
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
        self._calls = HedgedCalls(replicas, collection, number)
        self._search_latencies = RecentQuantiles((0.95,), window=256, every=32)
        self._fetch_latencies = RecentQuantiles((0.95,), window=256, every=32)
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

        Queries that ask for a state of their own go alone: a call that waits for it would hold a
        place that all the others need.
        """
        if options.min_watermark is not None:
            return asyncio.ensure_future(self._search(snapshot_id, queries, options, deadline))
        return self._batcher.submit(queries, (snapshot_id, options), deadline)

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
        key = self._key(snapshot_id)
        return await self._calls.call(
            key,
            lambda client: client.fetch(key, ids, payload, deadline, chunks, min_watermark, filter),
            self._fetch_latencies,
            waits=min_watermark is not None,
        )

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
        """Lists items; see `Shard.scan`. Never hedged: twice the work would be a lot."""
        key = self._key(snapshot_id)
        return await self._calls.call(
            key,
            lambda client: client.scan(
                key, after_id, limit, filter, payload, deadline, min_watermark
            ),
        )

    async def count(
        self,
        snapshot_id: str,
        filter: Filter | None,
        fields: Sequence[str],
        deadline: float | None = None,
        min_watermark: Watermark | None = None,
    ) -> ShardCounts:
        """Counts items; see `Shard.count`. Never hedged."""
        key = self._key(snapshot_id)
        return await self._calls.call(
            key, lambda client: client.count(key, filter, fields, deadline, min_watermark)
        )

    async def ready(self, snapshot_id: str) -> int:
        """Counts the ready replicas; see `ready_replicas`."""
        return self.ready_replicas(snapshot_id)

    def ready_replicas(self, snapshot_id: str) -> int:
        """Counts the replicas that answer and hold that snapshot, by what was last heard."""
        key = self._key(snapshot_id)
        return sum(replica.holds(key) for replica in self._calls.replicas)

    def _key(self, snapshot_id: str) -> ShardKey:
        return ShardKey(self._collection, snapshot_id, self._number)

    def _start(self) -> None:
        runner = asyncio.ensure_future(self._run())
        # The loop keeps no reference to its tasks.
        self._runners.add(runner)
        runner.add_done_callback(self._runners.discard)

    async def _run(self) -> None:
        """Sends batches for as long as there are any."""
        while (batch := self._batcher.take()) is not None:
            try:
                self._batcher.finish(batch, await self._send(batch))
            except Exception as error:
                self._batcher.finish(batch, None, error)

    async def _send(self, batch: Batch[tuple[str, ShardOptions], ShardHits]) -> Sequence[ShardHits]:
        snapshot_id, options = batch.options
        return await self._search(snapshot_id, batch.queries, options, batch.deadline)

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

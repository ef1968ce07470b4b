"""Serves a snapshot in Milvus as one shard."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable, Sequence
from functools import partial

from nearline.errors import Unsupported
from retrieval.index.highlights import highlight_items, with_texts
from retrieval.live.progress import LiveState
from retrieval.milvus.reader import MilvusReader
from retrieval.milvus.searcher import MilvusSearcher
from retrieval.milvus.stored_items import StoredRows
from retrieval.protocols.candidates import (
    CandidatesRequest,
    HistoryRequest,
    ShardCandidates,
    StoredHistory,
    UseCandidates,
)
from retrieval.protocols.compute_threads import run_stoppable
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

# Concurrent search calls; searches that arrive in the meantime share the next call.
_SLOTS = 3
# While another call is in progress, the next one waits this long to collect more queries: a call
# costs 2 ms of CPU time in Milvus, its client and here, however few queries it has. A single query
# does not wait.
_BATCH_WAIT_S = 0.003
_MAX_BATCH = 16
_FIRST_CHUNK = "chunk == 0"


class MilvusShard:
    """A whole snapshot in a Milvus collection; belongs to one event loop.

    Args:
        snapshot_id: Id of the snapshot; requests for another one are rejected.
        reader: Reads the collection.
        searcher: Searches the collection.
        stored: Reads the items of the collection.
        has_words: Whether the collection supports lexical search.
        observe: Called with the size of every batch.
    """

    def __init__(
        self,
        snapshot_id: str,
        reader: MilvusReader,
        searcher: MilvusSearcher,
        stored: StoredRows,
        *,
        has_words: bool,
        observe: Callable[[float], None] = lambda size: None,
    ) -> None:
        self.has_words = has_words
        self._snapshot_id = snapshot_id
        self._reader = reader
        self._searcher = searcher
        self._stored = stored
        self._admission = ShardAdmission(snapshot_id, "the shard over Milvus")
        self._runners: set[asyncio.Task[None]] = set()
        self._batcher: Batcher[ShardOptions, ShardHits] = Batcher(
            self._start, slots=_SLOTS, max_batch=_MAX_BATCH, observe=observe
        )

    @property
    def reader(self) -> MilvusReader:
        """The reader of the collection.

        Applying live changes updates its read context (`reader.context`).
        """
        return self._reader

    def attach(self, live: LiveState) -> None:
        """Enables watermarks in requests; the changes themselves are in Milvus."""
        self._admission.live = live

    def search(
        self,
        snapshot_id: str,
        queries: ShardQueries,
        options: ShardOptions,
        deadline: float | None = None,
    ) -> Future[Sequence[ShardHits]]:
        """Searches; see `Shard.search`. A search that has started runs to its end."""
        return self._admission.submit(self._batcher, snapshot_id, queries, options, deadline)

    async def fetch(
        self, snapshot_id: str, request: ItemsRequest, deadline: float | None = None
    ) -> ShardItems:
        """Reads items; see `Shard.fetch`."""
        await self._admission.admit(snapshot_id, request.min_watermark, deadline)
        applied = self._applied()
        if request.highlight is None:
            items = await self._stored.fetch(request, deadline)
            return ShardItems([item for item in items if item is not None], applied)
        items = await self._stored.fetch(with_texts(request), deadline)
        matchers = [self._searcher.matcher] * len(items)
        kept, highlights = await run_stoppable(
            partial(highlight_items, items, request, matchers), deadline
        )
        return ShardItems(kept, applied, highlights)

    async def scan(
        self, snapshot_id: str, request: ScanRequest, deadline: float | None = None
    ) -> ShardItems:
        """Reads items in id order; see `Shard.scan`."""
        await self._admission.admit(snapshot_id, request.min_watermark, deadline)
        applied = self._applied()
        items = await self._stored.scan(request, deadline)
        return ShardItems(items, applied)

    async def count(
        self, snapshot_id: str, request: CountRequest, deadline: float | None = None
    ) -> ShardCounts:
        """Counts items; see `Shard.count`.

        Raises: Unsupported: Values are requested, which Milvus does not count.
        """
        await self._admission.admit(snapshot_id, request.min_watermark, deadline)
        if request.fields:
            raise Unsupported(
                "facets are not supported over Milvus; count without them, or serve the collection "
                "from FAISS shards",
                field="facets",
            )
        applied = self._applied()
        wanted = self._reader.matching(request.filter, _FIRST_CHUNK)
        return ShardCounts(await self._reader.count(wanted, deadline), [], applied)

    async def suggest(
        self, snapshot_id: str, request: SuggestRequest, deadline: float | None = None
    ) -> ShardSuggestions:
        """Raises Unsupported: Milvus has no index of the beginnings of words."""
        raise Unsupported(
            "titles cannot be completed over Milvus; serve the collection from FAISS shards"
        )

    @property
    def server(self) -> int:
        """Names this shard, the only one."""
        return id(self)

    async def candidates(
        self,
        snapshot_id: str,
        request: CandidatesRequest,
        deadline: float | None = None,
        also: Sequence[int] = (),
        then: UseCandidates | None = None,
    ) -> ShardCandidates:
        """Raises Unsupported: with Milvus, the router finds candidates itself."""
        raise _no_behaviour()

    async def history(
        self, snapshot_id: str, request: HistoryRequest, deadline: float | None = None
    ) -> StoredHistory:
        """Raises Unsupported: with Milvus, the router reads histories itself."""
        raise _no_behaviour()

    async def ready(self, snapshot_id: str) -> bool:
        """Returns whether this is the shard of a snapshot and no outage of Milvus is known."""
        return snapshot_id == self._admission.admitted and not self._reader.client.outage

    async def close(self) -> None:
        """Cancels running searches and rejects later requests."""
        self._admission.close()
        for runner in self._runners:
            runner.cancel()
        if self._runners:
            await asyncio.wait(self._runners)
        while (batch := self._batcher.take()) is not None:
            self._batcher.finish(batch, None, self._admission.gone_error(self._snapshot_id))
        await self._reader.close()
        self._admission.live = None

    def _applied(self) -> AppliedState | None:
        """Returns the state of live changes; call it before a read, which sees at least these."""
        live = self._admission.live
        return None if live is None else live.view.applied

    def _start(self) -> None:
        runner = asyncio.ensure_future(self._run())
        self._runners.add(runner)
        runner.add_done_callback(self._runners.discard)

    async def _run(self) -> None:
        """Answers batches until none is left."""
        while True:
            if len(self._runners) > 1:
                await asyncio.sleep(_BATCH_WAIT_S)
            batch = self._batcher.take()
            if batch is None:
                return
            results, error = None, None
            try:
                applied = self._applied()
                results = await self._searcher.search(batch.queries, batch.options, batch.deadline)
                if applied is not None:
                    for hits in results:
                        hits.applied = applied
            except asyncio.CancelledError:
                self._batcher.finish(batch, None, self._admission.gone_error(self._snapshot_id))
                raise
            except Exception as caught:
                error = caught
            self._batcher.finish(batch, results, error)


def _no_behaviour() -> Unsupported:
    return Unsupported("Milvus holds no behaviour tables; the router loads them itself")

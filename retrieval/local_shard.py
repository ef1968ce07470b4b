"""A shard in this process: its legs, the items beside them, and threads that search."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Filter, HitLevel, Item, PayloadField, Scalar, SearchMode
from nearline.errors import SnapshotGone
from nearline.filters import All, Exists
from retrieval.backends.vector_index import SearchParams, VectorIndex
from retrieval.coalescer import Coalescer
from retrieval.filtering.matching import Attributes
from retrieval.finding import Found, UnitOf
from retrieval.items import ItemTable
from retrieval.legs import Legs, Wanted
from retrieval.lexical.index import LexicalIndex
from retrieval.search_threads import SearchThreads
from retrieval.shard import (
    HitPayload,
    LexicalColumns,
    Plan,
    Queries,
    ShardCounts,
    ShardHits,
    ShardOptions,
)
from retrieval.stored import StoredItems

# Searches in one thread of a batch run one after another: short batches keep the wait even, and
# the event loop busy while the next one runs (16 cost an eighth of the rate at 8 callers).
_MAX_BATCH = 4


class LocalShard:
    """One shard of one snapshot, searched in a thread pool.

    Args:
        snapshot_id: Snapshot it belongs to; requests for another one are refused.
        number: Shard number, for errors.
        index: The vectors.
        items: Documents; index row r is a chunk of document `items.documents_of(r)`.
        attributes: What filters look at.
        lexical: The words; None where the snapshot has none.
        unit_length: True where vectors are kept at unit length (metric cosine).
        threads: Threads to search in; may be shared with other shards.
        observe: Told the size of every batch.
    """

    def __init__(
        self,
        snapshot_id: str,
        number: int,
        index: VectorIndex,
        items: ItemTable,
        attributes: Attributes,
        lexical: LexicalIndex | None,
        *,
        unit_length: bool,
        threads: SearchThreads,
        observe: Callable[[float], None] = lambda size: None,
    ) -> None:
        self._snapshot_id = snapshot_id
        self._number = number
        self._index = index
        self._items = items
        self._attributes = attributes
        self._lexical = lexical
        self._legs = Legs(index, items, attributes.filtered, lexical)
        self._stored = StoredItems(index, items, unit_length=unit_length)
        self._threads = threads
        self._coalescer: Coalescer[ShardOptions, ShardHits] = Coalescer(
            self._start, slots=threads.count, max_batch=_MAX_BATCH, observe=observe
        )
        self.chunks = items.chunks
        self.documents = items.documents
        # Chunks asked of the index per document wanted, at first.
        mean = -(-items.chunks // max(1, items.documents))
        self._chunks_per_document = min(items.max_chunks, 2 * mean)

    def search(
        self,
        snapshot_id: str,
        queries: Queries,
        options: ShardOptions,
        deadline: float | None = None,
    ) -> Future[Sequence[ShardHits]]:
        """Searches; see `Shard.search`. A search that began runs to its end."""
        if snapshot_id != self._snapshot_id:
            return _failed(self._gone(snapshot_id))
        return self._coalescer.ask(queries, options, deadline)

    async def fetch(
        self,
        snapshot_id: str,
        ids: Sequence[str],
        payload: frozenset[PayloadField],
        deadline: float | None = None,
        chunks: Sequence[int] = (),
    ) -> Sequence[Item]:
        """Reads items; see `Shard.fetch`."""
        self._check(snapshot_id)
        items: list[Item] = await self._threads.call(
            partial(self._stored.fetch, ids, payload, chunks)
        )
        return items

    async def scan(
        self,
        snapshot_id: str,
        after_id: str,
        limit: int,
        filter: Filter | None,
        payload: frozenset[PayloadField],
        deadline: float | None = None,
    ) -> Sequence[Item]:
        """Reads items in id order; see `Shard.scan`."""
        self._check(snapshot_id)

        def read() -> list[Item]:
            matching = None if filter is None else self._attributes.matches(filter).documents
            return self._stored.scan(after_id, limit, matching, payload)

        items: list[Item] = await self._threads.call(read)
        return items

    async def count(
        self,
        snapshot_id: str,
        filter: Filter | None,
        fields: Sequence[str],
        deadline: float | None = None,
    ) -> ShardCounts:
        """Counts items; see `Shard.count`."""
        self._check(snapshot_id)
        counts: ShardCounts = await self._threads.call(
            partial(self._attributes.count, filter, fields)
        )
        return counts

    async def ready(self, snapshot_id: str) -> bool:
        """Tells whether this is that snapshot: what is held is loaded."""
        return snapshot_id == self._snapshot_id

    def search_now(self, queries: Queries, options: ShardOptions) -> list[ShardHits]:
        """Searches in the calling thread."""
        if self.chunks == 0:
            return [ShardHits((), (), (), (), ()) for _ in range(queries.count)]
        wanted = self._wanted(options)
        plan: Plan | None = None
        if options.mode is SearchMode.HYBRID:
            return self._with_terms(self._candidates(queries, wanted, options), queries, options)
        if options.mode is SearchMode.LEXICAL:
            found = self._legs.lexical(queries.texts, wanted)
            if wanted.matches is not None:
                plan = self._attributes.word_plan(wanted.matches)
        else:
            found, plan = self._legs.dense(queries.vectors, wanted)
        return self._with_terms(self._hits(found, options, plan), queries, options)

    def close(self) -> None:
        """Lets go of the files; no search may be running."""
        self._index.close()
        self._items.close()
        if self._lexical is not None:
            self._lexical.close()
        # The old one refers to this shard. Without that circle all memory goes with the last
        # reference, and not when the collector happens to come by.
        self._coalescer = Coalescer(_start_nothing, slots=0, max_batch=1)

    def _start(self) -> None:
        self._threads.start(partial(self._run, asyncio.get_running_loop()))

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answers batches in a search thread for as long as there are any."""
        while (batch := self._coalescer.take()) is not None:
            results, error = None, None
            try:
                results = self.search_now(batch.queries, batch.options)
            except Exception as caught:
                error = caught
            loop.call_soon_threadsafe(self._coalescer.finish, batch, results, error)

    def _wanted(self, options: ShardOptions) -> Wanted:
        filter, units = options.filter, self.chunks
        unit_of: UnitOf | None = None
        first_ask = options.k
        if options.level is HitLevel.DOCUMENT:
            units = self.documents
            if self._items.max_chunks > 1:
                unit_of = self._items.documents_of
                first_ask = options.k * self._chunks_per_document
        if options.grouping is not None and options.mode is not SearchMode.HYBRID:
            field = options.grouping.field
            filter = Exists(field) if filter is None else All(filter, Exists(field))
            unit_of = partial(self._group_numbers, field, {})
            first_ask = 4 * options.k
        return Wanted(
            min(options.k, units),
            SearchParams(options.ef_search, options.nprobe, options.exact),
            unit_of,
            first_ask,
            None if filter is None else self._attributes.matches(filter),
        )

    def _groups(self, field: str, rows: NDArray[np.int64]) -> list[Scalar]:
        return self._attributes.first_values(field, self._items.documents_of(rows))

    def _group_numbers(
        self, field: str, known: dict[Scalar, int], rows: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        numbers = [known.setdefault(value, len(known)) for value in self._groups(field, rows)]
        return np.array(numbers, np.int64)

    def _hits(
        self, found: Sequence[Found], options: ShardOptions, plan: Plan | None
    ) -> list[ShardHits]:
        """Makes the hits of all queries in one go, query after query.

        After a search the caches are full of vectors, so every Python step is dear: steps are
        taken once for the whole batch.
        """
        one = len(found) == 1
        rows = found[0].rows if one else np.concatenate([each.rows for each in found])
        scores = found[0].scores if one else np.concatenate([each.scores for each in found])
        items = self._items
        documents = items.documents_of(rows)
        chunks, starts, ends = items.chunks_of(rows, documents)
        ids = items.ids(documents)
        payloads: Sequence[HitPayload] = ()
        if options.payload:
            payloads = self._stored.payloads(rows, documents, starts, ends, options.payload)
        groups = self._groups(options.grouping.field, rows) if options.grouping else ()
        all_scores = scores.tolist()
        hits = []
        at = 0
        for each in found:
            mine = slice(at, at + len(each.rows))
            hits.append(
                ShardHits(
                    ids[mine],
                    all_scores[mine],
                    chunks[mine],
                    starts[mine],
                    ends[mine],
                    payloads[mine],
                    None,
                    groups[mine],
                    plan,
                )
            )
            at = mine.stop
        return hits

    def _candidates(
        self, queries: Queries, wanted: Wanted, options: ShardOptions
    ) -> list[ShardHits]:
        documents = options.level is HitLevel.DOCUMENT
        found, plan = self._legs.candidates(queries, wanted, documents=documents)
        plain = options._replace(payload=frozenset())
        results = self._hits([Found(each.rows, each.scores) for each in found], plain, plan)
        for hits, each in zip(results, found, strict=True):
            rows = each.lexical_rows
            of = self._items.documents_of(rows)
            hits.lexical = LexicalColumns(
                each.lexical_scores.tolist(), *self._items.chunks_of(rows, of)
            )
        return results

    def _with_terms(
        self, results: list[ShardHits], queries: Queries, options: ShardOptions
    ) -> list[ShardHits]:
        """Adds the words of the queries, where they are to be explained."""
        if options.explain and options.mode is not SearchMode.DENSE and self._lexical is not None:
            for hits, text in zip(results, queries.texts, strict=True):
                hits.terms = self._lexical.terms(text)
        return results

    def _check(self, snapshot_id: str) -> None:
        if snapshot_id != self._snapshot_id:
            raise self._gone(snapshot_id)

    def _gone(self, snapshot_id: str) -> SnapshotGone:
        return SnapshotGone(
            f"shard {self._number} holds snapshot {self._snapshot_id}, not {snapshot_id}; "
            "retry the whole request"
        )


def _failed(error: Exception) -> Future[Sequence[ShardHits]]:
    future: Future[Sequence[ShardHits]] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future


def _start_nothing() -> None:
    """Stands for the start of runners in a shard that is closed."""

"""A shard in this process: a vector index, the items beside it, and threads that search."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nearline.contract import HitLevel, Item, PayloadField
from nearline.errors import SnapshotGone
from retrieval.backends.vector_index import Neighbours, SearchParams, VectorIndex
from retrieval.coalescer import Coalescer
from retrieval.items import ItemTable
from retrieval.search_threads import SearchThreads
from retrieval.shard import HitPayload, Queries, ShardHits, ShardOptions

# Searches in one thread of a batch run one after another: short batches keep the wait even, and
# the event loop busy while the next one runs (16 cost an eighth of the rate at 8 callers).
_MAX_BATCH = 4
_WIDEN = 4


class LocalShard:
    """One shard of one snapshot, searched in a thread pool.

    Args:
        snapshot_id: Snapshot it belongs to; requests for another one are refused.
        number: Shard number, for errors.
        index: The vectors.
        items: Documents; index row r is a chunk of document `items.documents_of(r)`.
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
        *,
        unit_length: bool,
        threads: SearchThreads,
        observe: Callable[[float], None] = lambda size: None,
    ) -> None:
        self._snapshot_id = snapshot_id
        self._number = number
        self._index = index
        self._items = items
        self._unit_length = unit_length
        self._threads = threads
        self._coalescer: Coalescer[ShardOptions, ShardHits] = Coalescer(
            self._start, slots=threads.count, max_batch=_MAX_BATCH, observe=observe
        )
        self.chunks = items.chunks
        self.documents = items.documents
        self._can_scan = "exact" in index.describe().knobs
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
    ) -> Sequence[Item]:
        """Reads items; see `Shard.fetch`."""
        if snapshot_id != self._snapshot_id:
            raise self._gone(snapshot_id)
        items: list[Item] = await self._threads.call(partial(self.fetch_now, ids, payload))
        return items

    async def ready(self, snapshot_id: str) -> bool:
        """Tells whether this is that snapshot: what is held is loaded."""
        return snapshot_id == self._snapshot_id

    def search_now(self, queries: Queries, options: ShardOptions) -> list[ShardHits]:
        """Searches in the calling thread."""
        vectors = queries.vectors
        if self.chunks == 0:
            return [ShardHits((), (), (), (), ()) for _ in vectors]
        if options.level is HitLevel.CHUNK or self._items.max_chunks <= 1:
            found = self._best_rows(vectors, min(options.k, self.chunks), options)
            counts = [found.ids.shape[1]] * len(vectors)
            rows, scores = found.ids.ravel(), found.scores.ravel()
            if not found.full:
                there = found.ids >= 0
                counts = there.sum(axis=1).tolist()
                rows, scores = found.ids[there], found.scores[there]
        else:
            best = self._best_documents(vectors, min(options.k, self.documents), options)
            counts = [len(rows) for rows, _ in best]
            rows = np.concatenate([rows for rows, _ in best])
            scores = np.concatenate([scores for _, scores in best])
        return self._hits(rows, scores, counts, options.payload)

    def fetch_now(self, ids: Sequence[str], payload: frozenset[PayloadField]) -> list[Item]:
        """Reads items in the calling thread."""
        items = self._items
        found = ((document_id, items.find(document_id)) for document_id in ids)
        return [
            Item(
                id=document_id,
                title=items.title(document) if PayloadField.TITLE in payload else "",
                text=items.text(document) if PayloadField.TEXT in payload else "",
                attributes=(
                    items.attributes(document) if PayloadField.ATTRIBUTES in payload else {}
                ),
                vector=self._vector_of(document) if PayloadField.VECTOR in payload else None,
            )
            for document_id, document in found
            if document is not None
        ]

    def close(self) -> None:
        """Lets go of the files; no search may be running."""
        self._index.close()
        self._items.close()

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

    def _best_rows(self, vectors: NDArray[np.float32], k: int, options: ShardOptions) -> Neighbours:
        """Finds k rows per query; by scanning where the index came back short of them."""
        params = SearchParams(options.ef_search, options.nprobe, options.exact)
        found = self._index.search(vectors, k, params)
        if found.full or options.exact or options.nprobe is not None or not self._can_scan:
            return found
        short = found.ids[:, -1] < 0
        if short.any():
            exact = self._index.search(vectors[short], k, params._replace(exact=True))
            found.ids[short], found.scores[short] = exact.ids, exact.scores
        return found

    def _best_documents(
        self, vectors: NDArray[np.float32], k: int, options: ShardOptions
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Gives, per query, the rows of the best chunk of each of the k best documents.

        A prefix of the best chunks that holds k documents holds the k best ones, so the ask is
        widened until it does, or until no rows are left.
        """
        ask = min(k * self._chunks_per_document, self.chunks)
        done: dict[int, tuple[NDArray[np.int64], NDArray[np.float32]]] = {}
        pending = np.arange(len(vectors))
        while len(pending):
            found = self._best_rows(vectors[pending], ask, options)
            documents = self._items.documents_of(found.ids)
            documents[found.ids < 0] = -1
            left = []
            for at, query in enumerate(pending.tolist()):
                firsts = np.unique(documents[at], return_index=True)[1]
                firsts = np.sort(firsts)[:k]
                firsts = firsts[documents[at][firsts] >= 0]
                if len(firsts) < k and ask < self.chunks:
                    left.append(query)
                else:
                    done[query] = found.ids[at][firsts], found.scores[at][firsts]
            pending = np.array(left, np.int64)
            ask = min(ask * _WIDEN, self.chunks)
        return [done[query] for query in range(len(vectors))]

    def _hits(
        self,
        rows: NDArray[np.int64],
        scores: NDArray[np.float32],
        counts: Sequence[int],
        payload: frozenset[PayloadField],
    ) -> list[ShardHits]:
        """Makes the hits of all queries in one go, query after query; counts: rows of each.

        After a search the caches are full of vectors, so every Python step is dear: steps are
        taken once for the whole batch.
        """
        items = self._items
        documents = items.documents_of(rows)
        chunks, starts, ends = items.chunks_of(rows, documents)
        ids = items.ids(documents)
        payloads = self._payloads(rows, documents, starts, ends, payload) if payload else []
        all_scores = scores.tolist()
        hits = []
        at = 0
        for count in counts:
            mine = slice(at, at + count)
            hits.append(
                ShardHits(
                    ids[mine],
                    all_scores[mine],
                    chunks[mine],
                    starts[mine],
                    ends[mine],
                    payloads[mine],
                )
            )
            at += count
        return hits

    def _payloads(
        self,
        rows: NDArray[np.int64],
        documents: NDArray[np.int64],
        starts: Sequence[int],
        ends: Sequence[int],
        payload: frozenset[PayloadField],
    ) -> list[HitPayload]:
        items = self._items
        vectors = self._index.reconstruct(rows) if PayloadField.VECTOR in payload else None
        return [
            HitPayload(
                items.title(document) if PayloadField.TITLE in payload else None,
                items.text(document)[start:end] if PayloadField.TEXT in payload else None,
                items.attributes(document) if PayloadField.ATTRIBUTES in payload else None,
                None if vectors is None else vectors[at],
            )
            for at, (document, start, end) in enumerate(
                zip(documents.tolist(), starts, ends, strict=True)
            )
        ]

    def _vector_of(self, document: int) -> NDArray[np.float32] | None:
        rows = self._items.rows_of(document)
        if len(rows) == 0:
            return None
        mean: NDArray[np.float32] = self._index.reconstruct(rows).mean(axis=0)
        norm = float(np.linalg.norm(mean))
        return mean / np.float32(norm) if self._unit_length and norm > 0 else mean

    def _gone(self, snapshot_id: str) -> SnapshotGone:
        return SnapshotGone(
            f"shard {self._number} holds snapshot {self._snapshot_id}, not {snapshot_id}; "
            "retry the whole request"
        )


def _failed(error: Exception) -> Future[Sequence[ShardHits]]:
    future: Future[Sequence[ShardHits]] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future

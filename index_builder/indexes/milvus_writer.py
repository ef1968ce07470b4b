"""Writes a published snapshot into Milvus as a collection, see `retrieval.milvus.layout`.

The state of the collection is marked as whole once every row is written, indexed, loaded, counted
and checked. An interrupted export leaves a state that is not whole: no router serves the
collection, the next export starts over, and `nearline snapshots prune` finds it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from index_builder.execution.progress import Progress, StageClock
from index_builder.lineage.snapshot_shards import SnapshotShard, has_exact_vectors, open_shards
from nearline.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    NotReady,
    Overloaded,
    SnapshotGone,
    SnapshotMismatch,
    Unsupported,
)
from nearline.retry import retry
from nearline.store.snapshot import KIND_NAMES, Store
from nearline.v1 import snapshot_pb2
from retrieval.index.lexical import vocabulary
from retrieval.index.lexical.vocabulary import Vocabulary
from retrieval.milvus.client import MilvusClient
from retrieval.milvus.collection_state import CollectionState, CollectionStates, store_identity
from retrieval.milvus.connection import MANAGE_S
from retrieval.milvus.layout import collection_name, parse_key
from retrieval.milvus.rows import make_rows
from retrieval.milvus.schema import Bm25
from retrieval.snapshots import golden_queries
from retrieval.snapshots.golden_queries import GoldenQueries, check_recall

INDEXES = ("HNSW", "FLAT")
# Scores are inner products; vectors of metric cosine are stored with unit length.
METRICS = {"cosine": "IP", "inner_product": "IP"}
# Source: limits of Milvus.
_DIMS = range(2, 32_769)
_EF = 64
_GOLDEN_BATCH = 100
# Number of documents whose vectors are read at once.
_BLOCK_DOCUMENTS = 256
# The limit of a message is 64 MB, and Milvus copies its content several times.
_BATCH_BYTES = 8 << 20
_BATCH_ROWS = 5_000
# Estimated size of a row without texts, attributes and vector.
_ROW_BYTES = 200
_TEXTS = ("key", "document", "title", "gap", "passage", "rest", "analysed")
# Seconds between retries while the server is away or overloaded: five minutes in total.
_DELAYS_S = (1, 2, 4, 8, 15, *[30] * 9)
_INDEX_POLL_S = 0.5
# Seconds without progress after which indexing has stalled.
_INDEX_STALLED_S = 900.0
_R = TypeVar("_R")
_PASSING = (NotReady, Overloaded, DeadlineExceeded)


@dataclass(frozen=True, slots=True, kw_only=True)
class MilvusExport:
    """The result of an export.

    name: Name of the Milvus collection. documents, chunks: Its content. index: HNSW or FLAT.
    words: Whether it has BM25.
    recall: Recall of the golden queries, 0..1; None if there are none or nothing was done.
    done: Whether the collection was written; False if it existed already.
    """

    name: str
    documents: int
    chunks: int
    index: str
    words: bool
    seconds: float
    recall: float | None
    done: bool


async def export(
    store: Store,
    collection: str,
    snapshot_id: str,
    client: MilvusClient,
    *,
    index: str = "HNSW",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> MilvusExport:
    """Writes a snapshot into Milvus and loads it there.

    Args:
        store, collection, snapshot_id: The snapshot; live changes since are not written.
        client: Client of the Milvus server.
        index: HNSW or FLAT.
        overwrite: Write it even if it exists already; discards its live changes.
        progress: Optional; receives the progress of stages.
    Raises: NotFound. Unsupported: its index has no exact vectors, or Milvus cannot hold them.
        InvalidRequest: Milvus cannot hold a document. AlreadyExists: the export exists with a
        different index, or from a different store. Conflict: another export of the snapshot began
        in the meantime. SnapshotMismatch: the recall is lower than at build time. Errors of
        `MilvusClient`.
    """
    started = time.monotonic()
    manifest = store.manifest(collection, snapshot_id)
    _check_manifest(manifest, index)
    capabilities = await client.capabilities()
    card = manifest.lexical if capabilities.words and manifest.HasField("lexical") else None
    states = CollectionStates(client)
    await states.create()
    name = collection_name(collection, snapshot_id)
    state = CollectionState(
        store=store_identity(store),
        collection=collection,
        snapshot_id=snapshot_id,
        whole=False,
        index=index,
        words=card is not None,
        documents=manifest.documents,
        chunks=manifest.chunks,
        single_valued=frozenset(one.name for one in manifest.attributes if not one.is_list),
        expiring=False,
        started_us=time.time_ns() // 1_000,
    )

    def result(recall: float | None, *, done: bool) -> MilvusExport:
        return MilvusExport(
            name=name,
            documents=state.documents,
            chunks=state.chunks,
            index=index,
            words=state.words,
            seconds=time.monotonic() - started,
            recall=recall,
            done=done,
        )

    # A server that has just started may leave its first calls unanswered.
    if not overwrite and await _retry(lambda: _already_exported(states, name, state)):
        return result(None, done=False)
    clock = StageClock(progress)
    with clock.stage("fetch"):
        source = await clock.in_thread(
            lambda: _SnapshotSource(store, manifest, words=card is not None)
        )
    try:
        # Written first, so that the state of an older export does not outlive its data.
        await states.write(name, state)
        await client.drop(name)
        bm25 = None if card is None else Bm25(card.k1, card.b)
        metric = METRICS[manifest.metric]
        await client.create(name, manifest.dim, metric, bm25=bm25, index=index)
        writer = await client.take_over(name)
        # Another writer may have written the state before the drop.
        await states.write(name, state, writer=writer)
        with clock.stage("write", manifest.chunks, "chunks") as advance:
            batches = _batches(source, manifest.dim)
            while batch := await clock.in_thread(lambda: next(batches, None)):
                await _insert_rows(client, writer, batch)
                advance(len(batch))
        with clock.stage("index"):
            await _retry(lambda: client.flush(name))
            await _retry(lambda: _wait_until_indexed(client, name))
            await _retry(lambda: client.load(name))
        with clock.stage("check"):
            await _retry(lambda: _check_counts(client, name, manifest))
            recall = await _retry(lambda: _measure_recall(client, name, source, manifest, index))
        whole = replace(state, whole=True, expiring=source.expiring)
        await _retry(lambda: _mark_complete(states, name, whole, writer))
    except SnapshotGone as error:
        raise Conflict(
            f"another export of snapshot {snapshot_id} began in the meantime; wait for it, or run "
            "this one again"
        ) from error
    finally:
        source.close()
    return result(recall, done=True)


async def _mark_complete(
    states: CollectionStates, name: str, whole: CollectionState, writer: str
) -> None:
    # A restarted server has unloaded the table of states.
    await states.create()
    await states.write(name, whole, writer=writer)


async def _already_exported(states: CollectionStates, name: str, wanted: CollectionState) -> bool:
    try:
        found = await states.read(name)
    except SnapshotMismatch:
        # The export was written by a different version of Nearline; routers of this version do not
        # serve it.
        return False
    if found is None or not found.whole or found.partition_by:
        return False
    if found.store != wanted.store:
        raise AlreadyExists(
            f"snapshot {found.snapshot_id} was exported to this Milvus from {found.store}, not "
            f"from {wanted.store}; overwrite it with --again"
        )
    if (found.index, found.words) != (wanted.index, wanted.words):
        raise AlreadyExists(
            f"snapshot {found.snapshot_id} was exported to this Milvus with {_shape(found)}, not "
            f"with {_shape(wanted)}; overwrite it with --again"
        )
    return True


def _shape(state: CollectionState) -> str:
    return f"index {state.index}, {'words' if state.words else 'no words'}"


class _SnapshotSource:
    """The documents of a snapshot; blocks while files are fetched.

    Args:
        store: The store.
        manifest: Manifest of the snapshot.
        words: Whether rows contain the words of their chunks.
    Raises: SnapshotCorrupt: a file differs from the manifest. SnapshotMismatch: the snapshot was
        written by another version of FAISS or of the text analysis.
    """

    def __init__(self, store: Store, manifest: snapshot_pb2.Manifest, *, words: bool) -> None:
        more_files = [golden_queries.FOLDER, *([vocabulary.FOLDER] if words else [])]
        self._shards = open_shards(store, manifest, with_index=True, more_files=more_files)
        folder = store.snapshot_folder(manifest.collection, manifest.snapshot_id)
        self.golden = GoldenQueries.read(folder, manifest)
        self._kinds = {field.name: KIND_NAMES[field.kind] for field in manifest.attributes}
        self._analyser = Vocabulary.load(folder).analyser if words else None
        self.expiring = any(len(shard.items.expiries()[0]) > 0 for shard in self._shards)

    def documents(self) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Yields the rows of each document, shard by shard in id order.

        Raises: InvalidRequest: Milvus cannot hold a document.
        """
        for shard in self._shards:
            for first in range(0, shard.items.documents, _BLOCK_DOCUMENTS):
                last = min(first + _BLOCK_DOCUMENTS, shard.items.documents)
                yield from self._rows(shard, first, last)

    def close(self) -> None:
        """Closes the files."""
        for shard in self._shards:
            shard.close()

    def _rows(
        self, shard: SnapshotShard, first: int, last: int
    ) -> Iterator[Sequence[Mapping[str, Any]]]:
        items, index = shard.items, shard.index
        assert index is not None, "opened with vectors"
        row = int(items.first_rows[first])
        vectors = index.reconstruct(np.arange(row, items.first_rows[last]))
        for document in range(first, last):
            rows = items.rows_of(document)
            _, starts, stops = items.chunks_of(rows, np.full(len(rows), document))
            yield make_rows(
                items.id(document),
                items.title(document),
                items.text(document),
                items.attributes(document),
                version=items.version(document),
                expires=items.expires(document),
                bounds=np.column_stack((starts, stops)),
                vectors=vectors[rows - row],
                kinds=self._kinds,
                analyser=self._analyser,
            )


def _check_manifest(manifest: snapshot_pb2.Manifest, index: str) -> None:
    """Raises InvalidRequest or Unsupported if Milvus cannot hold a snapshot."""
    if index not in INDEXES:
        raise InvalidRequest(f"index is {index!r}; use one of {', '.join(INDEXES)}")
    if manifest.metric not in METRICS:
        raise Unsupported(
            f"snapshot {manifest.snapshot_id} has metric {manifest.metric!r}, Milvus supports "
            f"{' and '.join(METRICS)}; build it with one of these"
        )
    if manifest.dim not in _DIMS:
        raise Unsupported(
            f"snapshot {manifest.snapshot_id} has vectors of {manifest.dim} numbers, Milvus allows "
            f"{_DIMS.start} to {_DIMS.stop - 1:,}; build it with another model"
        )
    if not has_exact_vectors(manifest):
        raise Unsupported(
            f"snapshot {manifest.snapshot_id} has index {manifest.index_factory}, which keeps "
            "vectors only approximately; build one that keeps them exactly: nearline build --index "
            "HNSW32,Flat, or add ,RFlat to the index"
        )


async def _check_counts(client: MilvusClient, name: str, manifest: snapshot_pb2.Manifest) -> None:
    """Raises InternalError if the numbers of documents or chunks differ from the snapshot."""
    chunks = await client.count(name, seen=0, timeout_s=MANAGE_S)
    documents = await client.count(name, "chunk == 0", seen=0, timeout_s=MANAGE_S)
    if (documents, chunks) != (manifest.documents, manifest.chunks):
        raise InternalError(
            f"Milvus collection {name} has {documents:,} documents and {chunks:,} chunks, the "
            f"snapshot has {manifest.documents:,} and {manifest.chunks:,}; run the export again"
        )


async def _measure_recall(
    client: MilvusClient,
    name: str,
    source: _SnapshotSource,
    manifest: snapshot_pb2.Manifest,
    index: str,
) -> float | None:
    """Returns the recall of the golden queries; None if there are none.

    Raises: SnapshotMismatch: the recall is too low.
    """
    golden = source.golden
    wanted = 0 if golden is None else sum(map(len, golden.ids))
    if golden is None or wanted == 0:
        return None
    k = max(map(len, golden.ids))
    ef = max(k, manifest.default_ef_search or _EF) if index == "HNSW" else None
    good = 0
    for at in range(0, len(golden.vectors), _GOLDEN_BATCH):
        vectors = golden.vectors[at : at + _GOLDEN_BATCH]
        answers = await client.search(name, vectors, k, ef=ef, seen=0, timeout_s=MANAGE_S)
        for query, answer in enumerate(answers, at):
            hits = ((parse_key(one.key)[0], one.score) for one in answer)
            good += min(golden.count_good(query, hits), len(golden.ids[query]))
    recall = good / wanted
    check_recall(recall, manifest, "in Milvus", "export it with --index FLAT")
    return round(recall, 4)


def _batches(source: _SnapshotSource, dim: int) -> Iterator[list[Mapping[str, Any]]]:
    """Yields rows in batches that fit into one call."""
    batch: list[Mapping[str, Any]] = []
    size = 0
    for rows in source.documents():
        fixed = _ROW_BYTES + 4 * dim + len(json.dumps(rows[0]["attributes"], ensure_ascii=False))
        for row in rows:
            row_size = fixed + sum(_size(row.get(field, "")) for field in _TEXTS)
            if batch and (size + row_size > _BATCH_BYTES or len(batch) == _BATCH_ROWS):
                yield batch
                batch, size = [], 0
            batch.append(row)
            size += row_size
    if batch:
        yield batch


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


async def _insert_rows(client: MilvusClient, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Inserts rows; retries while the server is unavailable."""
    try:
        await client.insert(name, rows)
    except _PASSING:
        await asyncio.sleep(_DELAYS_S[0])
        # The rows may have been written despite the error; inserting them again would repeat them.
        await _retry(lambda: client.upsert(name, rows, timeout_s=MANAGE_S))


async def _retry(step: Callable[[], Awaitable[_R]]) -> _R:
    """Runs a repeatable step; retries while the server is unavailable."""
    return await retry(step, on=_PASSING, delays=_DELAYS_S, heed_retry_after=False)


async def _wait_until_indexed(client: MilvusClient, name: str) -> None:
    """Waits until all rows are indexed, since rows loaded earlier are searched without an index."""
    least = None
    since = time.monotonic()
    while left := await client.count_unindexed(name):
        if least is None or left < least:
            least, since = left, time.monotonic()
        if time.monotonic() - since > _INDEX_STALLED_S:
            raise InternalError(
                f"Milvus at {client.uri} has not indexed another row of {name} in "
                f"{_INDEX_STALLED_S:.0f} s, {left:,} are left; check its index nodes"
            )
        await asyncio.sleep(_INDEX_POLL_S)

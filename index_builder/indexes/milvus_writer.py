"""Writes a published snapshot into Milvus, as a collection of its own; see `layout`.

The state beside it says that it is whole only once every row is there, indexed, loaded, counted
and tried. Whatever ends it before leaves a state that is not whole: no router serves that, the next
export begins again, and `nearline snapshots prune` finds it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from index_builder.execution.progress import NoProgress, Progress, StageClock
from index_builder.indexes.milvus_checks import (
    METRICS,
    check_counts,
    check_manifest,
    check_partition,
    check_rows,
    measure_recall,
)
from index_builder.indexes.milvus_source import SnapshotSource
from nearline.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    InternalError,
    NotReady,
    Overloaded,
    SnapshotMismatch,
)
from nearline.retry import retry
from nearline.snapshot import Store
from retrieval.milvus.client import MilvusClient
from retrieval.milvus.collection_state import CollectionState, CollectionStates, store_identity
from retrieval.milvus.connection import MANAGE_S
from retrieval.milvus.layout import collection_name
from retrieval.milvus.schema import Bm25

# A message may have 64 MB, and what it holds is copied several times.
_BATCH_BYTES = 8 << 20
_BATCH_ROWS = 5_000
# Beside texts, attributes and vector.
_ROW_BYTES = 200
_TEXTS = ("key", "document", "title", "gap", "passage", "rest", "analysed")
# Seconds between tries while the server is away or overloaded: five minutes in all.
_DELAYS_S = (1, 2, 4, 8, 15, *[30] * 9)
_INDEX_POLL_S = 0.5
# Seconds without one more row in an index.
_INDEX_STALLED_S = 900.0
_R = TypeVar("_R")
_PASSING = (NotReady, Overloaded, DeadlineExceeded)


@dataclass(frozen=True, slots=True, kw_only=True)
class MilvusExport:
    """What an export did.

    name: The collection of Milvus. documents, chunks: In it. index: HNSW or FLAT. words: It has
    BM25.
    recall: Of the golden queries, 0..1; None: the snapshot has none, or nothing was done.
    done: False: it was there already.
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
    partition_by: str = "",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> MilvusExport:
    """Writes a snapshot into Milvus and has it loaded there.

    Args:
        store, collection, snapshot_id: The snapshot; its changes since are not written.
        client: The Milvus.
        index: HNSW or FLAT.
        partition_by: Attribute that it is cut up by, such as a tenant: searches with a filter that
            names its values look nowhere else. Empty: it is not cut up.
        again: Write it again where it is there already, live changes in it included.
        progress: Is told of what happens.
    Raises: NotFound. Unsupported: its index keeps no exact vectors, or Milvus cannot hold them.
        InvalidRequest: Milvus cannot hold a document. AlreadyExists: it is there with another
        index, or from another store. Conflict: another export of it began meanwhile.
        SnapshotMismatch: Milvus finds less than the snapshot promises. What `MilvusClient` raises.
    """
    started = time.monotonic()
    manifest = store.manifest(collection, snapshot_id)
    check_manifest(manifest, index)
    check_partition(manifest, partition_by)
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
        partition_by=partition_by,
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

    # A server that was started a moment ago may leave its first questions without an answer.
    if not overwrite and await _retry(lambda: _already_exported(states, name, state)):
        return result(None, done=False)
    clock = StageClock(progress or NoProgress())
    with clock.stage("fetch"):
        source = await clock.in_thread(
            lambda: SnapshotSource(
                store, manifest, words=card is not None, partition_by=partition_by
            )
        )
    try:
        # The state first: what says that it is whole must not outlive what it speaks of.
        await states.write(name, state)
        await client.drop(name)
        bm25 = None if card is None else Bm25(card.k1, card.b)
        metric = METRICS[manifest.metric]
        await client.create(
            name, manifest.dim, metric, bm25=bm25, index=index, partitioned=bool(partition_by)
        )
        with clock.stage("write", manifest.chunks, "chunks") as advance:
            batches = _batches(source, manifest.dim)
            while batch := await clock.in_thread(lambda: next(batches, None)):
                await _insert_rows(client, name, batch)
                advance(len(batch))
        with clock.stage("index"):
            await _retry(lambda: client.flush(name))
            await _retry(lambda: _wait_until_indexed(client, name))
            await _retry(lambda: client.load(name))
        with clock.stage("check"):
            await _retry(lambda: check_counts(client, name, manifest))
            await _retry(lambda: check_rows(client, name, source))
            recall = await _retry(lambda: measure_recall(client, name, source, manifest, index))
        whole = replace(state, whole=True, expiring=source.expiring)
        await _retry(lambda: _mark_complete(states, name, whole))
    finally:
        source.close()
    return result(recall, done=True)


async def _mark_complete(states: CollectionStates, name: str, whole: CollectionState) -> None:
    # A server that came back meanwhile has the table no longer loaded.
    await states.create()
    newest = await states.read(name)
    if newest is None or newest.started_us != whole.started_us:
        raise Conflict(
            f"another export of snapshot {whole.snapshot_id} began while this one ran; wait for "
            "it, or run one more"
        )
    await states.write(name, whole)


async def _already_exported(states: CollectionStates, name: str, wanted: CollectionState) -> bool:
    try:
        found = await states.read(name)
    except SnapshotMismatch:
        # Of another version of Nearline, which no router of this one serves.
        return False
    if found is None or not found.whole:
        return False
    if found.store != wanted.store:
        raise AlreadyExists(
            f"snapshot {found.snapshot_id} is in this Milvus, written from {found.store}, not from "
            f"{wanted.store}; with --again it is written again"
        )
    if (found.index, found.words, found.partition_by) != (
        wanted.index,
        wanted.words,
        wanted.partition_by,
    ):
        raise AlreadyExists(
            f"snapshot {found.snapshot_id} is in this Milvus with {_shape(found)}, not with "
            f"{_shape(wanted)}; with --again it is written again"
        )
    return True


def _shape(state: CollectionState) -> str:
    words = "words" if state.words else "no words"
    cut = f", cut up by {state.partition_by!r}" if state.partition_by else ""
    return f"index {state.index}, {words}{cut}"


def _batches(source: SnapshotSource, dim: int) -> Iterator[list[Mapping[str, Any]]]:
    """Yields rows in batches that a call may have."""
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
    """Inserts rows; waits for a server that is away for a while."""
    try:
        await client.insert(name, rows)
    except _PASSING:
        await asyncio.sleep(_DELAYS_S[0])
        # They may be there all the same, and an insert would have them there twice.
        await _retry(lambda: client.upsert(name, rows, timeout_s=MANAGE_S))


async def _retry(step: Callable[[], Awaitable[_R]]) -> _R:
    """Takes a step that may be repeated; waits for a server that is away for a while."""
    return await retry(step, on=_PASSING, delays=_DELAYS_S, heed_retry_after=False)


async def _wait_until_indexed(client: MilvusClient, name: str) -> None:
    """Waits until all rows are indexed: what is loaded before is searched row by row."""
    least = None
    since = time.monotonic()
    while left := await client.count_unindexed(name):
        if least is None or left < least:
            least, since = left, time.monotonic()
        if time.monotonic() - since > _INDEX_STALLED_S:
            raise InternalError(
                f"Milvus at {client.uri} has not indexed one more row of {name} in "
                f"{_INDEX_STALLED_S:.0f} s, {left:,} are left; look at its index nodes"
            )
        await asyncio.sleep(_INDEX_POLL_S)

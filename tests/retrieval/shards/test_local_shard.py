"""A local shard: documents from chunks, widened searches, the fallback to a scan."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nearline.contract import HitLevel, Item
from nearline.errors import NotApplied, SnapshotGone
from nearline.filters import Phrase
from nearline.store.snapshot import PARTITIONS, Store
from retrieval.index.segment import Segment
from retrieval.index.thread_pool import ThreadPool
from retrieval.index.vectors.vector_index import IndexInfo, Neighbours, SearchParams
from retrieval.live.progress import LiveState, LiveView
from retrieval.protocols.shard import (
    CountRequest,
    ItemsRequest,
    ScanRequest,
    ShardCounts,
    ShardOptions,
    ShardQueries,
)
from retrieval.protocols.snapshot import read_current_snapshots
from retrieval.protocols.watermark import AppliedState, Watermark
from retrieval.shards.loader import LoadedShard, load_shards
from retrieval.shards.local_provider import LocalShardProvider
from retrieval.shards.local_shard import LocalShard
from tests.retrieval.cache.sample_lists import mark
from tests.retrieval.small_snapshots import Document, write_snapshot


@pytest.fixture
def threads() -> Iterator[ThreadPool]:
    started = ThreadPool(1)
    yield started
    started.close()


def load(root: Path, documents: Sequence[Document], threads: ThreadPool, **how: str) -> LocalShard:
    write_snapshot(root, documents, **how)  # type: ignore[arg-type]
    (snapshot,) = read_current_snapshots(Store(root), ())
    loaded: list[LoadedShard] = load_shards(Store(root), snapshot, None, threads=threads)
    return loaded[0].shard


def random_documents(rng: np.random.Generator, count: int, most: int) -> list[Document]:
    return [
        Document(
            id=f"d{number:03d}",
            vectors=rng.integers(-1, 2, (int(rng.integers(1, most + 1)), 4)).astype(np.float32),
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("factory", ["Flat", "HNSW8,Flat"])
def test_one_document_that_has_all_the_best_chunks_does_not_hide_the_others(
    tmp_path: Path, threads: ThreadPool, factory: str
) -> None:
    hog = Document(id="hog", vectors=np.full((300, 2), 5, np.float32))
    others = [Document(id=f"o{n}", vectors=np.array([[n / 8, 0]], np.float32)) for n in range(8)]
    shard = load(tmp_path, [hog, *others], threads, factory=factory)
    query = np.array([[1, 0]], np.float32)
    (hits,) = shard.search_now(ShardQueries(query), ShardOptions(4))
    assert list(hits.ids) == ["hog", "o7", "o6", "o5"]
    (hits,) = shard.search_now(ShardQueries(query), ShardOptions(4, level=HitLevel.CHUNK))
    assert list(zip(hits.ids, hits.chunks, strict=True)) == [("hog", n) for n in range(4)]


class Forgetful:
    """An index that finds at most two rows unless it scans."""

    def __init__(self, rows: int) -> None:
        self.scans = 0
        self._rows = rows

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        params: SearchParams = SearchParams(),  # noqa: B008
        allow: NDArray[np.uint8] | None = None,
        rows: NDArray[np.int64] | None = None,
    ) -> Neighbours:
        self.scans += params.exact
        ids = np.arange(k)[None].repeat(len(queries), axis=0)
        scores = -ids.astype(np.float32)
        limit = self._rows if params.exact else 2
        ids[:, limit:], scores[:, limit:] = -1, -np.inf
        return Neighbours(ids, scores)

    def reconstruct(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.zeros((len(rows), 4), np.float32)

    def describe(self) -> IndexInfo:
        return IndexInfo(kind="x", dim=4, rows=self._rows, knobs=frozenset({"exact"}))

    def close(self) -> None:
        return None


def test_an_index_that_returns_too_few_rows_is_scanned(
    tmp_path: Path, threads: ThreadPool, rng: np.random.Generator
) -> None:
    base = load(tmp_path, random_documents(rng, 20, 1), threads).base
    index = Forgetful(20)
    part = Segment(index, base.items, base._attributes, None, unit_length=False)
    (hits,) = part.search(ShardQueries(np.zeros((1, 4), np.float32)), ShardOptions(5))
    assert len(hits.ids) == 5
    assert index.scans == 1
    (hits,) = part.search(ShardQueries(np.zeros((1, 4), np.float32)), ShardOptions(5, nprobe=1))
    assert len(hits.ids) == 2


async def test_a_closed_shard_answers_nothing(tmp_path: Path, threads: ThreadPool) -> None:
    document = Document(id="a", vectors=np.ones((1, 2), np.float32))
    shard = load(tmp_path, [document], threads)
    (snapshot,) = read_current_snapshots(Store(tmp_path), ())
    # Without its live changes it would show what was deleted.
    shard.close()
    assert not await shard.ready(snapshot.snapshot_id)
    with pytest.raises(SnapshotGone, match="has released snapshot"):
        await shard.search(snapshot.snapshot_id, ShardQueries(document.vectors), ShardOptions(1))
    with pytest.raises(SnapshotGone, match="has released snapshot"):
        await shard.fetch(snapshot.snapshot_id, ItemsRequest(["a"], frozenset()))


def test_an_empty_shard_returns_no_hits(tmp_path: Path, threads: ThreadPool) -> None:
    only = Document(id="a", vectors=np.ones((1, 4), np.float32))
    write_snapshot(tmp_path, [only], shards=3)
    (snapshot,) = read_current_snapshots(Store(tmp_path), ())
    loaded = load_shards(Store(tmp_path), snapshot, None, threads=threads)
    two = ShardQueries(np.ones((2, 4), np.float32))
    results = [one.shard.search_now(two, ShardOptions(5)) for one in loaded]
    assert sorted(len(hits.ids) for both in results for hits in both) == [0, 0, 0, 0, 1, 1]


async def test_cancelled_scans_and_counts_never_start(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = ThreadPool(1)
    shard = load(tmp_path, random_documents(rng, 20, 2), threads)
    begun, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    started: list[str] = []
    scan, count = Segment.scan, Segment.count

    def blocking_scan(segment: Segment, *args: Any) -> Iterator[Item]:
        started.append("scan")
        loop.call_soon_threadsafe(begun.set)
        release.wait(10)
        return scan(segment, *args)

    def counted(segment: Segment, *args: Any) -> ShardCounts:
        started.append("count")
        return count(segment, *args)

    monkeypatch.setattr(Segment, "scan", blocking_scan)
    monkeypatch.setattr(Segment, "count", counted)
    snapshot_id = shard._admission.admitted or ""
    first = asyncio.create_task(shard.scan(snapshot_id, ScanRequest("", 10, None, frozenset())))
    await begun.wait()
    rest = [
        asyncio.create_task(shard.scan(snapshot_id, ScanRequest("", 10, None, frozenset())))
        for _ in range(250)
    ] + [asyncio.create_task(shard.count(snapshot_id, CountRequest(None, ()))) for _ in range(250)]
    await asyncio.sleep(0)
    for call in rest:
        call.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    release.set()
    assert len((await first).items) == 10
    await asyncio.to_thread(threads.close)
    shard.close()
    assert started == ["scan"]


@pytest.mark.parametrize("by", ["search", "count"])
async def test_a_phrase_is_not_looked_for_after_the_last_caller_has_left(
    tmp_path: Path, threads: ThreadPool, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    documents = [
        Document(id=f"d{number:03d}", vectors=np.ones((1, 4), np.float32), text="alpha beta")
        for number in range(100)
    ]
    shard = load(tmp_path, documents, threads, language="english")
    begun, release = asyncio.Event(), threading.Event()
    loop, read, items = asyncio.get_running_loop(), [], type(shard.base.items)
    text = items.text

    def slow(table: Any, document: int) -> str:
        read.append(document)
        loop.call_soon_threadsafe(begun.set)
        assert release.wait(10)
        return text(table, document)

    monkeypatch.setattr(items, "text", slow)
    snapshot_id = shard._admission.admitted or ""
    queries = ShardQueries(np.ones((1, 4), np.float32))
    phrase = Phrase("alpha beta")
    asked: asyncio.Future[Any]
    if by == "search":
        asked = asyncio.ensure_future(
            shard.search(snapshot_id, queries, ShardOptions(1, filter=phrase))
        )
    else:
        asked = asyncio.ensure_future(shard.count(snapshot_id, CountRequest(phrase, ())))
    began: asyncio.Future[Any] = asyncio.ensure_future(begun.wait())
    await asyncio.wait([began, asked], return_when=asyncio.FIRST_COMPLETED)
    if asked.done():
        raise asked.exception() or AssertionError("no text was read")
    asked.cancel()
    await asyncio.wait([asked])
    release.set()
    # The only thread is free again.
    await shard.search(snapshot_id, queries, ShardOptions(1))
    assert read == [0]
    counted = await shard.count(snapshot_id, CountRequest(phrase, ()))
    assert counted.count == 100
    shard.close()


async def test_searches_do_not_wait_for_scans(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_snapshot(tmp_path, random_documents(rng, 20, 2))
    provider = LocalShardProvider(Store(tmp_path), 1)
    (snapshot,) = read_current_snapshots(Store(tmp_path), ())
    (shard,) = await provider.prepare(snapshot)
    release = threading.Event()
    scan = Segment.scan

    def blocking_scan(segment: Segment, *args: Any) -> Iterator[Item]:
        release.wait(10)
        return scan(segment, *args)

    monkeypatch.setattr(Segment, "scan", blocking_scan)
    request = ScanRequest("", 5, None, frozenset())
    scans = [asyncio.create_task(shard.scan(snapshot.snapshot_id, request)) for _ in range(4)]
    await asyncio.sleep(0)
    queries = ShardQueries(np.ones((1, 4), np.float32))
    found = await asyncio.wait_for(shard.search(snapshot.snapshot_id, queries, ShardOptions(3)), 5)
    assert len(found[0].ids) == 3
    release.set()
    assert {len(one.items) for one in await asyncio.gather(*scans)} == {5}
    await provider.close()


@pytest.mark.parametrize("kind", ["search", "fetch", "scan", "count"])
async def test_every_read_waits_until_live_changes_reach_its_watermark(
    tmp_path: Path, threads: ThreadPool, rng: np.random.Generator, kind: str
) -> None:
    shard = load(tmp_path, random_documents(rng, 20, 2), threads)
    live = LiveState(0, range(PARTITIONS), LiveView(AppliedState(mark(3))))
    shard.attach(live)
    snapshot_id = shard._admission.admitted or ""

    async def read(least: Watermark, deadline: float | None = None) -> AppliedState | None:
        if kind == "search":
            queries = ShardQueries(np.ones((1, 4), np.float32))
            options = ShardOptions(3, min_watermark=least)
            return (await shard.search(snapshot_id, queries, options, deadline))[0].applied
        if kind == "fetch":
            items = ItemsRequest(["d001"], frozenset(), min_watermark=least)
            return (await shard.fetch(snapshot_id, items, deadline)).applied
        if kind == "scan":
            part = ScanRequest("", 5, None, frozenset(), least)
            return (await shard.scan(snapshot_id, part, deadline)).applied
        return (await shard.count(snapshot_id, CountRequest(None, (), least), deadline)).applied

    assert await read(mark(3)) == AppliedState(mark(3))
    with pytest.raises(NotApplied, match="has not applied 64 of the changes"):
        await read(mark(4), asyncio.get_running_loop().time() + 0.1)
    waiting = asyncio.create_task(read(mark(4)))
    while not live._waiting:
        await asyncio.sleep(0)
    assert not waiting.done()
    live.publish(LiveView(AppliedState(mark(4))))
    assert await waiting == AppliedState(mark(4))
    shard.close()

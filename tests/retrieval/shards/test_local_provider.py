"""Loads that callers share and that end early, threads, and deltas of shards."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nearline.errors import SnapshotGone
from nearline.store.snapshot import PARTITIONS, Store
from retrieval.index.thread_pool import ThreadPool
from retrieval.protocols.snapshot import SnapshotRef, read_current_snapshots
from retrieval.protocols.watermark import Watermark
from retrieval.shards import loader, local_provider
from retrieval.shards.loader import LoadedShard
from retrieval.shards.local_provider import LocalShardProvider, make_followed_shard
from tests.retrieval.small_snapshots import documents_of, write_snapshot

VECTORS = np.eye(8, dtype=np.float32)


class Gate:
    """Holds up loads until it is opened, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.begun = threading.Event()
        self.loads = 0
        load_shards = loader.load_shards

        def load(*arguments: object, **options: object) -> list[LoadedShard]:
            self.loads += 1
            self.begun.set()
            assert self.open.wait(20)
            return load_shards(*arguments, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(local_provider, "load_shards", load)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(monkeypatch)
    yield made
    made.open.set()


@pytest.fixture
def snapshot(tmp_path: Path) -> SnapshotRef:
    write_snapshot(tmp_path, documents_of(VECTORS))
    (current,) = read_current_snapshots(Store(tmp_path), ())
    return current


async def test_callers_share_a_load_and_one_that_is_cancelled_ends_it_for_nobody(
    tmp_path: Path, snapshot: SnapshotRef, gate: Gate
) -> None:
    shards = LocalShardProvider(Store(tmp_path), 1)
    first, second = (asyncio.create_task(shards.load(snapshot)) for _ in range(2))
    await asyncio.to_thread(gate.begun.wait, 20)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.open.set()
    loaded = await second
    assert (await shards.load(snapshot))[0] is loaded[0]
    assert gate.loads == 1
    await shards.close()


async def test_a_snapshot_that_is_released_while_it_loads_is_gone_for_its_callers(
    tmp_path: Path, snapshot: SnapshotRef, gate: Gate
) -> None:
    shards = LocalShardProvider(Store(tmp_path), 1)
    load = asyncio.create_task(shards.load(snapshot))
    await asyncio.to_thread(gate.begun.wait, 20)
    release = asyncio.create_task(shards.release(snapshot.collection, snapshot.snapshot_id))
    with pytest.raises(SnapshotGone, match="was released before it was ready"):
        await load
    gate.open.set()
    await release
    # It may be loaded again.
    assert len(await shards.load(snapshot)) == 1
    assert gate.loads == 2
    await shards.close()


@pytest.mark.parametrize(("threads", "scanners"), [(1, 1), (4, 1), (7, 1), (8, 2)])
async def test_exact_searches_have_a_quarter_of_the_search_threads_but_at_least_one(
    tmp_path: Path, threads: int, scanners: int
) -> None:
    before = threading.active_count()
    shards = LocalShardProvider(Store(tmp_path), threads)
    # One more thread loads snapshots.
    assert threading.active_count() - before == threads + scanners + 1
    await shards.close()


async def test_a_delta_starts_at_the_positions_of_the_partitions_of_its_shard(
    tmp_path: Path,
) -> None:
    write_snapshot(tmp_path, documents_of(VECTORS), shards=2)
    store = Store(tmp_path)
    (current,) = read_current_snapshots(store, ())
    threads, worker = ThreadPool(1), ThreadPool(1)
    start = Watermark("0" * 32, tuple(range(1, PARTITIONS + 1)))
    half = PARTITIONS // 2
    none = (0,) * half
    wanted = [start.positions[:half] + none, none + start.positions[half:]]
    for loaded, positions in zip(
        loader.load_shards(store, current, None, threads=threads), wanted, strict=True
    ):
        delta = await make_followed_shard(loaded, worker).new_delta(start, None)
        assert delta.view.applied.watermark == Watermark(start.log_id, positions)
        await delta.close()
    threads.close()
    worker.close()

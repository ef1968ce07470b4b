"""The shard host: shared loads, and files that close after the last search."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from nearline.errors import NotFound, SnapshotCorrupt
from nearline.filters import All
from nearline.store.snapshot import Store
from retrieval.index.thread_pool import ThreadPool
from retrieval.protocols.shard import ShardOptions, ShardQueries
from retrieval.protocols.snapshot import read_current_snapshots
from retrieval.shards.local_provider import LocalShardProvider
from retrieval.shards.shard_host import ShardHost
from tests.retrieval.small_snapshots import documents_of, write_snapshot
from tests.waits import until

DOCUMENTS = documents_of(np.ones((20, 2), np.float32))


async def test_concurrent_requests_share_one_load(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_snapshot(tmp_path, DOCUMENTS, shards=2)
    other = write_snapshot(tmp_path, DOCUMENTS, shards=2, promote=False)
    shards = LocalShardProvider(Store(tmp_path), 1, {1})
    host = ShardHost(Store(tmp_path), shards)
    await host.start()
    with caplog.at_level(logging.INFO):
        await asyncio.gather(*(host.load("default", other) for _ in range(5)))
        await host.load("default", other)
    assert [record.message for record in caplog.records].count("snapshot loaded") == 1
    assert [(one.snapshot.snapshot_id == other, one.number) for one in host].count((True, 1)) == 1
    with pytest.raises(NotFound, match="has no snapshot"):
        await host.load("default", "20260101T000000Z-000000")
    await host.close()
    await shards.close()


async def test_a_failed_load_is_retried(tmp_path: Path) -> None:
    write_snapshot(tmp_path, DOCUMENTS)
    (snapshot,) = read_current_snapshots(Store(tmp_path), ())
    path = Store(tmp_path).snapshot_folder("default", snapshot.snapshot_id)
    items = path / "shards/000/items.arrow"
    data = items.read_bytes()
    items.write_bytes(data[:-1])
    shards = LocalShardProvider(Store(tmp_path), 1)
    with pytest.raises(SnapshotCorrupt):
        await shards.prepare(snapshot)
    items.write_bytes(data)
    assert len(await shards.prepare(snapshot)) == 1
    await shards.close()


async def test_settled_waits_for_running_work_only() -> None:
    threads = ThreadPool(2)
    go_on, began = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        go_on.wait(10)

    await threads.settled()
    threads.start(work)
    await asyncio.to_thread(began.wait, 10)
    settled = asyncio.ensure_future(threads.settled())
    # The other thread is free, and what it does is nobody's business.
    await threads.call(lambda: None)
    assert not settled.done()
    go_on.set()
    await asyncio.wait_for(settled, 10)
    await asyncio.to_thread(threads.close)


async def test_a_released_shard_is_freed_without_the_garbage_collector(
    tmp_path: Path,
) -> None:
    write_snapshot(tmp_path, DOCUMENTS, factory="HNSW8,Flat")
    (snapshot,) = read_current_snapshots(Store(tmp_path), ())
    shards = LocalShardProvider(Store(tmp_path), 1)
    gc.collect()
    gc.disable()
    try:
        (shard,) = await shards.prepare(snapshot)
        options = ShardOptions(k=3, filter=All())
        await shard.search(snapshot.snapshot_id, ShardQueries(np.ones((1, 2), np.float32)), options)
        gone = weakref.ref(shard), weakref.ref(shard.base)
        del shard
        await shards.release("default", snapshot.snapshot_id)
        # The thread that closed it lets go last.
        await until(lambda: not any(one() for one in gone), 5)
    finally:
        gc.enable()
        await shards.close()

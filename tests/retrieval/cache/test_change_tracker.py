"""A change tracker follows the change log for the items of cached lists."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from nearline.retry import Backoff
from nearline.store.snapshot import Store, partition_of
from nearline.v1 import snapshot_pb2
from nearline_cli.local.processes import free_port
from retrieval.cache import change_tracker
from retrieval.cache.cached_list import CachedList
from retrieval.cache.change_tracker import ChangeTracker, ChangeTrackerRegistry
from retrieval.changelog.change_log import ChangeLog
from retrieval.changelog.creation import start_new_log
from retrieval.changelog.retention import log_lineage
from retrieval.protocols.watermark import Watermark
from retrieval.redis_client.connection import connect
from tests import waits
from tests.redis_server import needs_redis, valkey
from tests.retrieval.changelog.log_writes import change_logs, delete, set_attribute, upsert
from tests.retrieval.changelog.memory_log import MemoryLog

until = partial(waits.until, timeout_s=15)


def manifest(watermark: Watermark | None = None) -> snapshot_pb2.Manifest:
    """Returns the manifest of a snapshot that has the changes up to a position."""
    made = snapshot_pb2.Manifest(snapshot_id="snapshot1")
    if watermark is not None:
        made.change_log_id, made.watermark = watermark.log_id, watermark.encode()
    return made


def listed(*ids: str, has: Watermark) -> CachedList:
    return CachedList(ids, (b"",) * len(ids), 0, 0.0, has.encode())


@contextlib.asynccontextmanager
async def following(
    log: ChangeLog, logs: Callable[[], Sequence[str]], since: Watermark | None = None
) -> AsyncIterator[ChangeTracker]:
    touched = ChangeTracker(log, manifest(since), logs=logs)
    await touched.start()
    try:
        yield touched
    finally:
        await touched.close()


async def test_changes_after_the_snapshot_are_tracked() -> None:
    log = MemoryLog()
    has = (await log.append([upsert("before")])).watermark
    await log.append([upsert("a"), upsert("b"), upsert("c")])
    await log.append([delete("a"), set_attribute("b", "price", 1)])
    async with following(log, lambda: [log.log_id], has) as touched:
        assert "not read to its end" in touched.stale_reason
        await until(lambda: not touched.stale_reason)
        assert {name: one.deleted for name, one in touched.items.items()} == {
            "c": False,
            "a": True,
            "b": False,
        }
        assert touched.items["b"].partition == partition_of("b")
        changed = (await log.append([upsert("d")])).watermark
        await until(lambda: "d" in touched.items)
        read = touched.read(listed("a", "before", "d", has=has))
        assert list(read.cached.ids if read.cached else ()) == ["before", "d"]
        assert read.least == has.advanced(dict(enumerate(changed.positions)))
        head = (await log.state()).head
        touched.rebase(manifest(head))
        assert not touched.items
        assert touched.read(listed("d", has=head)).least is None


async def test_the_newest_items_that_exist_are_known() -> None:
    log = MemoryLog()
    await log.append([upsert("a"), upsert("b"), upsert("c")])
    await log.append([delete("c")])
    registry = ChangeTrackerRegistry(cast(Store, None), None)
    async with following(log, lambda: [log.log_id]) as touched:
        await until(lambda: not touched.stale_reason)
        registry["shop"] = touched
        await log.append([set_attribute("a", "price", 1)])
        await until(lambda: [*touched.items][-1] == "a")
        assert list(registry.newest("shop", 5)) == ["a", "b"]
        assert list(registry.newest("shop", 1)) == ["a"]
        assert list(registry.newest("other", 5)) == []


async def test_tracked_changes_stay_in_use_while_the_log_is_away() -> None:
    log = MemoryLog()
    async with following(log, lambda: [log.log_id]) as touched:
        await log.append([upsert("a")])
        await until(lambda: "a" in touched.items)
        log.away = True
        await until(lambda: "does not answer" in touched.stale_reason)
        assert set(touched.items) == {"a"}
        log.away = False
        await log.append([upsert("b")])
        await until(lambda: not touched.stale_reason)
        await until(lambda: "b" in touched.items)
        assert set(touched.items) == {"a", "b"}


async def test_changes_lost_in_a_failover_are_dropped() -> None:
    log = MemoryLog()
    async with following(log, lambda: [log.log_id]) as touched:
        await log.append([upsert("a"), upsert("b")])
        await until(lambda: len(touched.items) == 2)
        log.set_back(partition_of("a"), 0)
        await until(lambda: set(touched.items) == {"b"})
        await until(lambda: not touched.stale_reason)


async def test_the_log_of_another_snapshot_is_not_followed_and_the_reason_is_reported() -> None:
    log = MemoryLog()
    await log.append([delete("a"), upsert("b")])
    async with following(log, lambda: [log.log_id], Watermark("f" * 32)) as touched:
        await until(lambda: "belongs to change log ffff" in touched.stale_reason)
        read = touched.read(listed("a", "b", has=Watermark("f" * 32)))
        assert (list(read.cached.ids if read.cached else ()), read.least) == (["a", "b"], None)
        # A snapshot of this log comes into force.
        touched.rebase(manifest(Watermark(log.log_id)))
        await until(lambda: not touched.stale_reason)
        assert set(touched.items) == {"b"}


async def test_retries_are_less_and_less_frequent_until_the_log_was_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures: list[int] = []

    class Recorded(Backoff):
        """Records how many failures preceded each."""

        def delay_s(self, failed: int) -> float:
            failures.append(failed)
            return 0.001

    log = MemoryLog()
    touched = ChangeTracker(log, manifest(Watermark("f" * 32)), logs=lambda: [log.log_id])
    monkeypatch.setattr(change_tracker, "_BACKOFF", Recorded(0.001))
    await touched.start()
    try:
        await until(lambda: len(failures) >= 3)
        touched.rebase(manifest(Watermark(log.log_id)))
        await until(lambda: not touched.stale_reason)
        before = list(failures)
        assert before == list(range(len(before)))
        await log.append([upsert("a")])
        await until(lambda: touched.items)
        touched.rebase(manifest(Watermark("f" * 32)))
        log.set_back(partition_of("a"), 0)
        await until(lambda: len(failures) >= len(before) + 3)
        assert failures[len(before) :][:3] == [0, 1, 2]
    finally:
        await touched.close()


@pytest.mark.service
@needs_redis
async def test_a_log_in_redis_is_followed_from_its_start_through_a_kill_to_the_next_log(
    tmp_path: Path,
) -> None:
    port, store = free_port(), Store(tmp_path / "store")
    url = f"redis://127.0.0.1:{port}/0"
    async with change_logs(tmp_path / "store", url) as logs:
        writer = logs.log("default")
        async with following(
            logs.reader("default"), lambda: log_lineage(store, "default")
        ) as touched:
            await until(lambda: "Redis does not answer" in touched.stale_reason)
            async with valkey(tmp_path / "redis", port), connect(url, timeout_s=10.0) as client:
                await writer.append([upsert("a"), upsert("b")])
                await writer.append([delete("a")])
                await until(lambda: len(touched.items) == 2 and touched.items["a"].deleted)
                await until(lambda: not touched.stale_reason)
                os.kill(int((await client.info("server"))["process_id"]), signal.SIGKILL)
                await until(lambda: "Redis does not answer" in touched.stale_reason)
                assert set(touched.items) == {"a", "b"}
            async with valkey(tmp_path / "redis", port):
                await writer.append([upsert("c")])
                await until(lambda: "c" in touched.items and not touched.stale_reason)
                assert set(touched.items) == {"a", "b", "c"}
            async with valkey(tmp_path / "emptied", port):
                await until(lambda: "it was emptied" in touched.stale_reason)
                assert set(touched.items) == {"a", "b", "c"}
                start_new_log(store, "default", "a test", "the old one is lost")
                await writer.state()
                await writer.append([upsert("d")])
                await until(lambda: set(touched.items) == {"d"} and not touched.stale_reason)

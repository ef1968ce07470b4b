"""The change log when its Redis is killed, emptied, replaced, set back, or not durable."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nearline.contract import WriteOutcome
from nearline.errors import InvalidRequest, NotReady, SnapshotMismatch
from nearline.internal.v1.change_pb2 import LogRecord
from nearline.store.snapshot import PARTITIONS, Store, partition_of
from nearline_cli.local.processes import free_port
from retrieval.changelog.creation import start_new_log
from retrieval.changelog.keys import partition_keys
from retrieval.changelog.registry import ChangeLogs
from retrieval.protocols.watermark import Watermark
from retrieval.redis_client.connection import connect
from tests.redis_server import needs_redis, valkey
from tests.retrieval.changelog.log_writes import change_logs, delete, upsert

pytestmark = [pytest.mark.service, needs_redis]
A = partition_of("a")
ALL = dict.fromkeys(range(64), 0)


@contextlib.asynccontextmanager
async def one_log(store: Path, folder: Path, port: int) -> AsyncIterator[tuple[ChangeLogs, int]]:
    """Runs a Redis in a folder; yields its logs and its pid."""
    async with valkey(folder, port) as url, change_logs(store, url) as logs:
        async with connect(url, timeout_s=10.0) as client:
            pid = int((await client.info("server"))["process_id"])
        yield logs, pid


async def test_acknowledged_changes_survive_a_kill(tmp_path: Path) -> None:
    acknowledged: dict[str, int] = {}

    async def write(logs: ChangeLogs, who: int) -> None:
        log = logs.log("default")
        with contextlib.suppress(NotReady):
            for number in range(1_000_000):
                name = f"{len(acknowledged)} {who} {number}"
                [done] = (await log.append([upsert(name)], name)).results
                acknowledged[name] = done.version

    folder, port = tmp_path / "redis", free_port()
    for _ in range(2):
        async with one_log(tmp_path / "store", folder, port) as (logs, pid):
            await logs.log("default").state()
            before = len(acknowledged)
            writers = [asyncio.create_task(write(logs, who)) for who in range(4)]
            while len(acknowledged) < before + 200:
                await asyncio.sleep(0)
            os.kill(pid, signal.SIGKILL)
            await asyncio.gather(*writers)
            with pytest.raises(NotReady, match="Redis does not answer"):
                await logs.reader("default").read(ALL, wait_s=5)
    async with one_log(tmp_path / "store", folder, port) as (logs, _):
        log = logs.log("default")
        after, found = dict(ALL), {}
        while entries := await log.read(after):
            for entry in entries:
                after[entry.partition] = entry.position
                found[entry.change.document_id] = entry.position
        assert acknowledged.items() <= found.items()
        # What was not acknowledged may be there; asked again, it is not made twice.
        unsure = next((name for name in found if name not in acknowledged), None)
        if unsure is not None:
            [again] = (await log.append([upsert(unsure)], unsure)).results
            assert again.version == found[unsure]


async def test_writes_succeed_after_redis_returns(tmp_path: Path) -> None:
    folder, port = tmp_path / "redis", free_port()
    async with one_log(tmp_path / "store", folder, port) as (logs, _):
        url = logs.log("default")
        await url.append([upsert("a")])
    async with change_logs(tmp_path / "store", f"redis://127.0.0.1:{port}/0") as logs:
        log, reader = logs.log("default"), logs.reader("default")
        with pytest.raises(NotReady) as caught:
            await log.append([upsert("a")])
        assert caught.value.retry_after_s
        with pytest.raises(NotReady, match="live changes need it"):
            await reader.read({A: 0})
        async with one_log(tmp_path / "store", folder, port):
            assert [e.position for e in await reader.read({A: 0})] == [1]
            [done] = (await log.append([upsert("a")])).results
            assert (done.outcome, done.version) == (WriteOutcome.REPLACED, 2)


async def test_writes_that_would_not_be_durable_are_rejected(
    empty_redis: str, tmp_path: Path
) -> None:
    async with connect(empty_redis, timeout_s=10.0) as client:
        async with change_logs(tmp_path, empty_redis) as logs:
            await client.config_set("appendonly", "no")
            # Not even made.
            with pytest.raises(NotReady, match="set appendonly yes"):
                await logs.log("default").state()
            assert await client.dbsize() == 0
            await client.config_set("appendonly", "yes")
        async with change_logs(tmp_path, empty_redis) as logs:
            log = logs.log("default")
            await log.append([upsert("a")])
            # Found out after the append, since a second has not passed.
            await client.config_set("appendonly", "no")
            with pytest.raises(NotReady, match="does not guarantee durability"):
                await log.append([upsert("b")], "key")
            with pytest.raises(NotReady, match=r"not accepted: .*set appendonly yes") as caught:
                await log.append([upsert("b")], "key")
            assert caught.value.retry_after_s
            assert len(await log.read(ALL)) == 2
            await client.config_set("appendonly", "yes")
        async with change_logs(tmp_path, empty_redis) as logs:
            log = logs.log("default")
            [done] = (await log.append([upsert("b")], "key")).results
            assert (done.outcome, done.version) == (WriteOutcome.APPLIED, 1)
        try:
            for policy in ("allkeys-lru", "volatile-lru", "volatile-ttl"):
                await client.config_set("maxmemory-policy", policy)
                async with change_logs(tmp_path, empty_redis) as logs:
                    wanted = rf"\(maxmemory-policy {policy}\); set maxmemory-policy noeviction"
                    with pytest.raises(NotReady, match=wanted):
                        await logs.log("default").append([upsert("b")])
        finally:
            await client.config_set("maxmemory-policy", "noeviction")


async def test_an_append_waits_for_fsync_every_second(empty_redis: str, tmp_path: Path) -> None:
    async with connect(empty_redis, timeout_s=10.0) as client:
        await client.config_set("appendfsync", "everysec")
        async with change_logs(tmp_path, empty_redis) as logs:
            await logs.log("default").append([upsert("a")])
            about = await client.info("persistence")
            assert about["aof_pending_bio_fsync"] == 0 and about["aof_buffer_length"] == 0
        await client.config_set("appendfsync", "always")


async def test_missing_replicas_fail_the_append(empty_redis: str, tmp_path: Path) -> None:
    async with change_logs(tmp_path, empty_redis) as logs:
        await logs.log("default").state()
    async with change_logs(tmp_path, empty_redis, replicas=1) as logs:
        log = logs.log("default")
        with pytest.raises(NotReady, match=r"1 of 1 Redis and 0 of 1 replicas.*same idempotency"):
            await log.append([upsert("a")], "key", timeout_s=20)


async def test_a_full_redis_rejects_whole_requests(empty_redis: str, tmp_path: Path) -> None:
    async with (
        change_logs(tmp_path, empty_redis) as logs,
        connect(empty_redis, timeout_s=10.0) as client,
    ):
        log = logs.log("default")
        await log.append([upsert("a")])
        await client.config_set("maxmemory", "1")
        with pytest.raises(NotReady, match="Redis refuses"):
            await log.append([upsert("a"), upsert("b")])
        await client.config_set("maxmemory", "512mb")
        assert len(await log.read(ALL)) == 1


async def test_an_emptied_redis_is_not_mistaken_for_a_new_one(
    empty_redis: str, tmp_path: Path
) -> None:
    async with (
        change_logs(tmp_path, empty_redis) as logs,
        connect(empty_redis, timeout_s=10.0) as client,
    ):
        log, reader = logs.log("default"), logs.reader("default")
        await log.append([upsert("a")])
        assert len(await reader.read({A: 0})) == 1
        waiting = asyncio.create_task(reader.read({A: 1}, wait_s=60))
        await asyncio.sleep(0)
        await client.flushall()
        # A reader that waits notices within a second; a writer, and a new service, at once.
        with pytest.raises(SnapshotMismatch, match="has none"):
            await asyncio.wait_for(waiting, 10)
        for _ in range(2):
            with pytest.raises(SnapshotMismatch, match="it was emptied"):
                await log.append([upsert("a")])
        with pytest.raises(SnapshotMismatch):
            await log.trim(
                Watermark((Store(tmp_path).log_in_force("default") or LogRecord()).log_id)
            )
            await log.state()
    async with change_logs(tmp_path, empty_redis) as logs:
        for call in (logs.log("default").state(), logs.log("default").read({A: 0})):
            with pytest.raises(SnapshotMismatch, match="--redis, restore its data"):
                await call


async def test_the_log_of_another_store_is_rejected(empty_redis: str, tmp_path: Path) -> None:
    async with change_logs(tmp_path / "one", empty_redis) as logs:
        one = (await logs.log("default").state()).head.log_id
        await logs.log("default").append([upsert("a")])
    async with change_logs(tmp_path / "two", empty_redis) as logs:
        with pytest.raises(SnapshotMismatch, match=f"but Redis has change log {one}"):
            await logs.log("default").append([upsert("b")])
    async with change_logs(tmp_path / "one", empty_redis) as logs:
        log = logs.log("default")
        assert len(await log.read(ALL)) == 1
        # Exchanged under a reader, for one that has more.
        async with connect(empty_redis, timeout_s=10.0) as client:
            for partition in range(PARTITIONS):
                await client.hset(partition_keys("default", partition).meta, "log", "f" * 32)
        with pytest.raises(SnapshotMismatch, match="has change log ffff"):
            await log.read({A: 1})
        with pytest.raises(SnapshotMismatch, match="has change log ffff"):
            await logs.reader("default").read({A: 0})


async def test_an_incomplete_log_is_completed(empty_redis: str, tmp_path: Path) -> None:
    record = start_new_log(Store(tmp_path), "default", "somebody", "then it died")
    async with connect(empty_redis, timeout_s=10.0) as client:
        await client.hset(
            partition_keys("default", 3).meta,
            mapping={"log": record.log_id, "seq": 0, "trimmed": 0, "nonce": "", "time": 0},
        )
    async with change_logs(tmp_path, empty_redis) as logs:
        assert (await logs.log("default").state()).head == Watermark(record.log_id)
        await logs.log("default").append([upsert("a")])
    assert Store(tmp_path).log_ready("default", 1)


async def test_a_new_log_replaces_a_lost_one(empty_redis: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    async with (
        change_logs(tmp_path, empty_redis) as logs,
        connect(empty_redis, timeout_s=10.0) as client,
    ):
        log, reader = logs.log("default"), logs.reader("default")
        old = (await log.append([upsert("a"), delete("a")], "key")).watermark
        await reader.read({A: 0})
        # Some partitions are lost, some are there still.
        for partition in range(30):
            await client.delete(partition_keys("default", partition).meta)
        record = start_new_log(store, "default", "somebody", "a disk died")
        assert (record.number, record.follows, record.who) == (2, old.log_id, "somebody")
        state = await log.state()
        assert state.head == state.trimmed == Watermark(record.log_id)
        # A key of the old log says nothing of the new one.
        done = await log.append([upsert("a"), delete("a")], "key")
        assert done.watermark == Watermark(record.log_id).advanced({A: 2})
        # Who still reads the old one is told, and goes over when he asks.
        for _ in range(2):
            with pytest.raises(SnapshotMismatch, match="but Redis has change log"):
                await reader.read({A: 2})
        assert (await reader.state()).head.log_id == record.log_id
        assert len(await reader.read({A: 0})) == 2
    assert [one.number for one in store.log_records("default")] == [2, 1]


async def test_a_log_that_was_set_back_is_detected(tmp_path: Path) -> None:
    folder, port, store = tmp_path / "redis", free_port(), tmp_path / "store"
    async with one_log(store, folder, port) as (logs, _):
        await logs.log("default").append([upsert("a")])
        await logs.log("default").append([upsert("b", "of another partition")])
    shutil.copytree(folder, tmp_path / "copy")
    url = f"redis://127.0.0.1:{port}/0"
    async with change_logs(store, url) as logs:
        log, behind, idle, ahead = (logs.reader("default") for _ in range(4))
        async with one_log(store, folder, port):
            for reader in (behind, idle, ahead):
                assert len(await reader.read({A: 0})) == 1
            await log.append([upsert("a")])
            await log.append([upsert("a")])
            assert len(await idle.read({A: 1})) == len(await ahead.read({A: 1})) == 2
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "copy", folder)
        async with one_log(store, folder, port):
            # Behind what was read.
            with pytest.raises(SnapshotMismatch, match="was set back: change 3 of"):
                await ahead.read({A: 3})
            await log.append([upsert("a"), upsert("c")])
            await log.append([upsert("a")])
            # As far as what was read, and another one.
            with pytest.raises(SnapshotMismatch, match="was set back: change 3 of"):
                await idle.read({A: 3})
            await log.append([upsert("a")])
            # Further, without a gap in the numbers.
            for _ in range(2):
                with pytest.raises(SnapshotMismatch, match="read again from the snapshot on"):
                    await ahead.read({A: 3})
            # Who has read nothing that was lost goes on; who has begins again.
            assert [e.position for e in await behind.read({A: 1})] == [2, 3, 4]
            assert [e.position for e in await ahead.read({A: 0})] == [1, 2, 3, 4]
            assert await ahead.read({A: 4}) == []


async def test_missing_entries_are_detected(empty_redis: str, tmp_path: Path) -> None:
    async with (
        change_logs(tmp_path, empty_redis) as logs,
        connect(empty_redis, timeout_s=10.0) as client,
    ):
        log = logs.log("default")
        await log.append([upsert("a")])
        await log.append([upsert("a")])
        keys = partition_keys("default", A)
        await client.xdel(keys.log, "1-0")
        with pytest.raises(SnapshotMismatch, match="no longer in change log"):
            await log.read({A: 0})
        await client.delete(keys.log)
        with pytest.raises(SnapshotMismatch, match="is gone or has been replaced"):
            await log.read({A: 0}, wait_s=5)


async def test_a_hanging_redis_ends_calls_at_their_timeout(tmp_path: Path) -> None:
    async with one_log(tmp_path / "store", tmp_path / "redis", free_port()) as (logs, pid):
        log = logs.log("default")
        await log.append([upsert("a")])
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(NotReady, match=r"within 0\.2 s; nothing was appended"):
                await log.append([upsert("b")], "key", timeout_s=0.2)
            with pytest.raises(
                NotReady, match=r"within 0\.2 s; .*may have been appended: try again with the"
            ):
                await log.append([upsert("b")], timeout_s=0.2)
        finally:
            os.kill(pid, signal.SIGCONT)
        # Sent again with its key it is carried out once, whatever became of it.
        again = [await log.append([upsert("c")], "another") for _ in range(2)]
        assert again[0] == again[1]
        assert [entry.change.document_id for entry in await log.read(ALL)].count("c") == 1
        with pytest.raises(InvalidRequest):
            await log.append([upsert("c")], "key")

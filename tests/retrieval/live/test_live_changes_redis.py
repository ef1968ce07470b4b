"""Shards that follow a log in a real Redis that is killed, wiped, replaced, or not persistent."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis import Redis

from nearline.errors import NotReady, SnapshotMismatch
from nearline.v1 import snapshot_pb2
from nearline_cli.local.processes import free_port
from retrieval.changelog.creation import start_new_log
from retrieval.changelog.records import ChangeWrite
from retrieval.changelog.registry import ChangeLogs
from retrieval.protocols.watermark import Watermark
from retrieval.snapshots.promotable import make_promotion_check
from tests.redis_server import needs_redis, valkey
from tests.retrieval.changelog.log_writes import change_logs
from tests.retrieval.live.followed_collection import OLD, Followed, until_stale, until_texts, upsert

pytestmark = [pytest.mark.service, needs_redis]


@contextlib.asynccontextmanager
async def followed(root: Path, logs: ChangeLogs) -> AsyncIterator[Followed]:
    one = Followed(root, named=False, logs=logs.reader)
    try:
        yield one
    finally:
        await one.close()


async def write(logs: ChangeLogs, document_id: str, text: str) -> Watermark:
    appended = await logs.log("default").append([ChangeWrite(upsert(document_id, text))])
    return appended.watermark


async def test_following_resumes_after_redis_is_killed(tmp_path: Path) -> None:
    port = free_port()
    where = f"redis://127.0.0.1:{port}/0"
    async with change_logs(tmp_path, where) as logs, followed(tmp_path, logs) as one:
        async with valkey(tmp_path / "redis", port):
            await one.load()
            assert await one.texts(await write(logs, "d0", "first")) == {**OLD, "d0": "first"}
        assert await one.texts() == {**OLD, "d0": "first"}
        async with valkey(tmp_path / "redis", port):
            assert await one.texts(await write(logs, "d0", "second")) == {**OLD, "d0": "second"}
            await until_stale(one, "")


async def test_an_emptied_redis_stops_followers_with_a_remedy(
    tmp_path: Path, empty_redis: str
) -> None:
    async with change_logs(tmp_path, empty_redis) as logs, followed(tmp_path, logs) as one:
        await one.load()
        await one.texts(await write(logs, "d0", "kept"))
        with Redis.from_url(empty_redis) as client:
            client.flushall()
        await until_stale(one, "has none: it was emptied")
        assert await one.texts() == {**OLD, "d0": "kept"}
        async with change_logs(tmp_path, empty_redis) as others:
            other = Followed(tmp_path / "another", named=False, logs=others.reader)
            other.store, other.live._store = one.store, one.store
            other.snapshot = one.snapshot
            other.hosting._store = one.store
            with pytest.raises(SnapshotMismatch, match="pass the right Redis"):
                await other.load()
            await other.close()
            with pytest.raises(SnapshotMismatch, match="it was emptied"):
                await make_promotion_check(one.store, others, "default")
            # The operator takes the loss: a new log, which all snapshots are taken to go on into.
            start_new_log(one.store, "default", "a test", "it was lost")
        async with change_logs(tmp_path, empty_redis) as others:
            await write(others, "d1", "after it")
        await until_texts(one, {**OLD, "d1": "after it"})
        await until_stale(one, "")


async def test_a_redis_without_persistence_rejects_changes_but_not_searches(
    tmp_path: Path, empty_redis: str
) -> None:
    with Redis.from_url(empty_redis) as client:
        client.config_set("appendonly", "no")
        async with change_logs(tmp_path, empty_redis) as logs, followed(tmp_path, logs) as one:
            await one.load()
            assert await one.texts() == OLD
            with pytest.raises(NotReady, match="appendonly"):
                await write(logs, "d0", "lost")
            client.config_set("appendonly", "yes")
            async with change_logs(tmp_path, empty_redis) as others:
                await write(others, "d0", "kept")
            await until_texts(one, {**OLD, "d0": "kept"})


async def test_only_snapshots_that_can_follow_the_log_are_promoted(
    tmp_path: Path, empty_redis: str
) -> None:
    async with change_logs(tmp_path, empty_redis) as logs:
        one = Followed(tmp_path, named=False)
        await one.close()
        (await make_promotion_check(one.store, logs, "default"))(one.snapshot.manifest)
        await write(logs, "d0", "first")
        seen = await write(logs, "d0", "second")
        check = await make_promotion_check(one.store, logs, "default")
        check(one.snapshot.manifest)
        await logs.log("default").trim(seen)
        check = await make_promotion_check(one.store, logs, "default")
        with pytest.raises(SnapshotMismatch, match="only has those after 2; build a snapshot"):
            check(one.snapshot.manifest)
        check(one.make(watermark=seen).manifest)
        with pytest.raises(SnapshotMismatch, match=f"belongs to change log {'f' * 32}"):
            check(snapshot_pb2.Manifest(change_log_id="f" * 32))
        (await make_promotion_check(one.store, None, "default"))(one.snapshot.manifest)
    async with change_logs(tmp_path, f"redis://127.0.0.1:{free_port()}/0") as away:
        (await make_promotion_check(one.store, away, "default"))(one.snapshot.manifest)

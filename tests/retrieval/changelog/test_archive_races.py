"""Failovers in the middle of an archiving, several of them, and archives of older versions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from nearline.errors import NotReady, SnapshotMismatch, StoreError
from nearline.store.snapshot import Store
from nearline_cli.local.bundled_redis import HOST
from retrieval.changelog import archive as archiving
from retrieval.changelog.archive import Archive, archive_changes
from retrieval.changelog.archive_segments import encode_segment
from retrieval.changelog.change_log import LogDiverged, PartitionEnd
from retrieval.protocols.watermark import Watermark
from tests.local_cluster import ClusterProcess
from tests.redis_server import needs_redis
from tests.retrieval.changelog.log_writes import change_logs, upsert
from tests.retrieval.changelog.test_archive_failover import (
    A,
    archived,
    ids,
    log_of,
    pair,
    texts,
    until_equal,
    until_in_sync,
)

pytestmark = [pytest.mark.service, needs_redis]


class Interrupted:
    """A log after one of whose calls something happens, once."""

    def __init__(self, log: Any, name: str, event: Callable[[], Awaitable[None]]) -> None:
        self._log, self._name, self._event = log, name, event

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._log, name)
        if name != self._name:
            return call

        async def interrupted(*given: Any) -> Any:
            found = await call(*given)
            self._name = ""
            await self._event()
            return found

        return interrupted


async def part(servers: tuple[ClusterProcess, ClusterProcess]) -> None:
    """Cuts the link once the replica has everything."""
    await until_equal(servers)
    await servers[1].ask("REPLICAOF", "NO", "ONE")


async def set_back(server: ClusterProcess, other: ClusterProcess) -> None:
    """Lets a server have the data of the other: a failover behind one address."""
    await server.ask("REPLICAOF", HOST, other.port)
    await until_in_sync(server)
    await until_equal((other, server))
    await server.ask("REPLICAOF", "NO", "ONE")


async def test_a_log_that_is_set_back_while_it_is_archived_leaves_no_empty_segments(
    tmp_path: Path,
) -> None:
    store, (a, b) = tmp_path / "store", ids(2)
    async with pair(tmp_path) as servers, log_of(store, servers[0]) as log:
        await log.append([upsert(a, "1")])
        await archive_changes(Store(store), log)
        await part(servers)
        await log.append([upsert(b, "2")])
        once: Any = Interrupted(log, "state", lambda: set_back(*servers))
        async with asyncio.timeout(20):
            await archive_changes(Store(store), once)
        log_id = (await log.state()).head.log_id
        assert len(Archive(Store(store), "default", log_id).numbers()) == 1
        assert archived(store, log_id) == ["1"] == await texts(log)


async def test_what_another_primary_has_unconfirmed_is_not_archived_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiving, "SEGMENT_CHANGES", 2)
    monkeypatch.setattr(archiving, "_ENTRIES_PER_READ", 2)
    store, names = tmp_path / "store", ids(8)
    async with pair(tmp_path) as servers, log_of(store, servers[0]) as log:
        await log.append([upsert(names[0], "1")])
        await part(servers)
        await log.append([upsert(one, f"old {one}") for one in names[1:7]])

        async def fail_over() -> None:
            await set_back(*servers)
            async with log_of(store, servers[0], 1) as strict:
                with pytest.raises(NotReady):
                    await strict.append([upsert(one, "unconfirmed") for one in names[1:6]])

        once: Any = Interrupted(log, "confirm", fail_over)
        with contextlib.suppress(NotReady):
            await archive_changes(Store(store), once)
        assert "unconfirmed" not in archived(store, (await log.state()).head.log_id)


async def test_a_restoration_that_comes_late_changes_nothing(tmp_path: Path) -> None:
    store, (a, b, c) = tmp_path / "store", ids(3)
    async with pair(tmp_path) as servers:
        async with log_of(store, servers[0]) as log:
            await log.append([upsert(a, "1")])
            await part(servers)
            await log.append([upsert(b, "2")])
            archive = await archive_changes(Store(store), log)
        async with log_of(store, servers[1]) as log:
            lost = [one for one in archive.entries(Watermark(archive.log_id)) if one.position == 2]
            await archive_changes(Store(store), log)
            await log.append([upsert(c, "3")])
            archive = await archive_changes(Store(store), log)
            await log.trim(archive.end(), archive.ends())
            with pytest.raises(LogDiverged):
                await log.restore(A, PartitionEnd(1, b""), lost)
            # Nor does one leave a hole, or continue something else.
            for after in (PartitionEnd(4, b""), PartitionEnd(3, b"other")):
                with pytest.raises(LogDiverged):
                    await log.restore(A, after, lost)
            state = await log.state()
            assert state.head.positions[A] == state.trimmed.positions[A] == 3


async def test_a_second_failover_to_a_server_that_was_not_restored_keeps_the_order(
    tmp_path: Path,
) -> None:
    store, (a, b, x) = tmp_path / "store", ids(3)
    async with pair(tmp_path) as servers:
        async with log_of(store, servers[0]) as log:
            await log.append([upsert(a, "1")])
            await part(servers)
            await log.append([upsert(b, "lost")])
            await archive_changes(Store(store), log)
        async with log_of(store, servers[1]) as log, log_of(store, servers[0]) as back:
            await log.append([upsert(x, "old")])
            await set_back(*servers)
            await archive_changes(Store(store), log)
            await log.append([upsert(x, "new")])
            await archive_changes(Store(store), log)
            end = (await archive_changes(Store(store), back)).end()
            assert await texts(back) == ["1", "lost", "old", "new"] == archived(store, end.log_id)


async def test_changes_that_an_older_version_archived_are_never_taken_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, (a, b, c, d) = tmp_path / "store", ids(4)
    encode = encode_segment
    async with pair(tmp_path) as servers:
        async with log_of(store, servers[0]) as log:
            await log.append([upsert(a, "1")])
            await part(servers)
            await log.append([upsert(b, "2")])
            with monkeypatch.context() as patch:
                patch.setattr(
                    archiving,
                    "encode_segment",
                    lambda rows, before, after, _: encode(
                        [one._replace(nonce=b"") for one in rows], before, after
                    ),
                )
                await archive_changes(Store(store), log)
            await log.append([upsert(c, "3")])
            end = (await archive_changes(Store(store), log)).end()
        async with log_of(store, servers[1]) as log:
            await log.append([upsert(d, "acknowledged")])
            with pytest.raises(SnapshotMismatch, match="it has lost changes"):
                await archive_changes(Store(store), log)
            assert await texts(log) == ["1", "acknowledged"]
            assert archived(store, end.log_id) == ["1", "2", "3"]


async def test_a_trim_that_was_lost_does_not_ask_for_dropped_segments(tmp_path: Path) -> None:
    store, (a, b, c) = tmp_path / "store", ids(3)
    async with pair(tmp_path) as servers:
        async with log_of(store, servers[0]) as log:
            await log.append([upsert(a, "1"), upsert(b, "2")])
            archive = await archive_changes(Store(store), log)
            await part(servers)
            await log.trim(archive.end(), archive.ends())
            archive.drop(archive.end())
            await log.append([upsert(c, "3")])
            await archive_changes(Store(store), log)
        async with log_of(store, servers[1]) as log:
            await log.append([upsert(a, "4")])
            await archive_changes(Store(store), log)
            assert await texts(log) == ["1", "2", "3", "4"]


async def test_fewer_replicas_count_from_the_next_write_on(tmp_path: Path) -> None:
    store, (a, *_) = tmp_path / "store", ids(1)
    async with pair(tmp_path) as (primary, replica):
        async with log_of(store, primary, 1) as log:
            await log.append([upsert(a, "1")])
        await replica.kill()
        async with log_of(store, primary) as log:
            with pytest.raises(NotReady):
                await archive_changes(Store(store), log)
            await log.append([upsert("of another partition", "2")])
            assert (await archive_changes(Store(store), log)).end().positions[A] == 1


async def test_an_archiver_that_has_read_what_was_replaced_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, (a, b, c) = tmp_path / "store", ids(3)
    url = ""
    async with pair(tmp_path) as servers:
        url = f"redis://{HOST}:{servers[0].port}/0"
        async with change_logs(store, url) as one, change_logs(store, url) as other:
            first, second = one.log("default"), other.log("default")
            await first.append([upsert(a, "1")])
            await part(servers)
            await first.append([upsert(b, "2")])

            def fail(*_: object) -> None:
                raise StoreError("the store is away")

            with monkeypatch.context() as patch, pytest.raises(StoreError):
                patch.setattr(Archive, "add", fail)
                await archive_changes(Store(store), first)
            await set_back(*servers)
            await second.append([upsert(b, "other")])
            await archive_changes(Store(store), second)
            await second.append([upsert(c, "3")])
            end = (await archive_changes(Store(store), first)).end()
            assert archived(store, end.log_id) == ["1", "other", "3"]

"""A replica takes over: the archive and the log agree again, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from itertools import count, islice
from pathlib import Path

import pytest

from nearline.errors import NotReady
from nearline.store.snapshot import Store, partition_of
from nearline_cli.local.bundled_redis import HOST
from retrieval.changelog.archive import Archive, archive_changes
from retrieval.changelog.change_log import ChangeLog, LogDiverged
from retrieval.protocols.watermark import Watermark
from tests.local_cluster import ClusterProcess
from tests.redis_server import needs_redis
from tests.retrieval.changelog.log_writes import change_logs, delete, upsert
from tests.waits import until

pytestmark = [pytest.mark.service, needs_redis]
A = partition_of("a")


def ids(most: int) -> list[str]:
    """Returns ids in the partition of "a"."""
    return list(islice((one for one in map(str, count()) if partition_of(one) == A), most))


@contextlib.asynccontextmanager
async def pair(folder: Path) -> AsyncIterator[tuple[ClusterProcess, ClusterProcess]]:
    """Runs a server and a replica that has its data."""
    options = {"cluster-enabled": "no", "repl-diskless-sync-delay": "0"}
    servers = [ClusterProcess(folder / name, options) for name in ("primary", "replica")]
    try:
        for one in servers:
            await one.start()
        await servers[1].ask("REPLICAOF", HOST, servers[0].port)
        await until_in_sync(servers[1])
        yield servers[0], servers[1]
    finally:
        for one in servers:
            await one.close()


async def until_in_sync(replica: ClusterProcess) -> None:
    await until(replica.in_sync, timeout_s=30)


async def until_equal(servers: tuple[ClusterProcess, ClusterProcess]) -> None:
    """Waits until the replica has everything."""
    async with asyncio.timeout(30):
        while (await servers[0].ask("ROLE"))[1] != (await servers[1].ask("ROLE"))[4]:
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def log_of(
    store: Path, server: ClusterProcess, replicas: int = 0
) -> AsyncIterator[ChangeLog]:
    url = f"redis://{HOST}:{server.port}/0"
    async with change_logs(store, url, replicas) as logs:
        yield logs.log("default")


async def texts(log: ChangeLog) -> list[str]:
    """Returns the texts of the changes in partition A of a log."""
    trimmed = (await log.state()).trimmed.positions[A]
    return [one.change.text for one in await log.read({A: trimmed})]


def archived(store: Path, log_id: str) -> list[str]:
    entries = Archive(Store(store), "default", log_id).entries(Watermark(log_id))
    return [one.change.text for one in entries]


async def test_a_change_that_no_replica_confirmed_is_not_archived(tmp_path: Path) -> None:
    store, (doc, other, last) = tmp_path / "store", ids(3)
    async with pair(tmp_path) as (primary, replica):
        async with log_of(store, primary, 1) as log:
            await log.append([upsert(doc, "v1")])
            await until_equal((primary, replica))
            await replica.ask("REPLICAOF", "NO", "ONE")
            with pytest.raises(NotReady, match="0 of 1 replicas"):
                await log.append([upsert(doc, "never acknowledged")])
            with pytest.raises(NotReady, match="0 of 1 replicas"):
                await archive_changes(Store(store), log)
        # Upkeep does not know how many replicas a write needs, but the log does.
        async with log_of(store, primary) as log:
            with pytest.raises(NotReady, match="0 of 1 replicas"):
                await archive_changes(Store(store), log)
        async with log_of(store, replica) as log:
            await log.append([upsert(other, "B")])
            await log.append([upsert(last, "v3")])
            end = (await archive_changes(Store(store), log)).end()
            assert archived(store, end.log_id) == ["v1", "B", "v3"] == await texts(log)


async def test_what_a_log_lost_comes_back_from_the_archive_before_what_followed(
    tmp_path: Path,
) -> None:
    store, (doc, other, third, fourth) = tmp_path / "store", ids(4)
    async with pair(tmp_path) as (primary, replica):
        async with log_of(store, primary) as log:
            await log.append([upsert(doc, "1"), upsert(third, "2")])
            await until_equal((primary, replica))
            await replica.ask("REPLICAOF", "NO", "ONE")
            await log.append([upsert(doc, "3"), upsert(other, "4")])
            await log.append([delete(third, base_version=2)])
            await archive_changes(Store(store), log)
        async with log_of(store, replica) as log, log_of(store, replica) as reader:
            [done] = (await log.append([upsert(doc, "5")])).results
            assert done.version == 3
            # In one request: both have one nonce.
            await log.append([upsert(other, "6"), upsert(fourth, "7")])
            before = await reader.read({A: 0})
            assert [one.change.text for one in before] == ["1", "2", "5", "6", "7"]
            archive = Archive(Store(store), "default", (await log.state()).head.log_id)
            with pytest.raises(LogDiverged, match="so it stays as it is"):
                await log.trim(archive.end(), archive.ends())
            end = (await archive_changes(Store(store), log)).end()
            expected = ["1", "2", "3", "4", "", "5", "6", "7"]
            assert archived(store, end.log_id) == expected == await texts(log)
            # Who had read further than what was lost reads again.
            with pytest.raises(LogDiverged):
                await reader.read({A: before[-1].position})
            # Versions are those of the changes, where they now are.
            results = (
                await log.append(
                    [
                        upsert(doc, "8", if_version=6),
                        upsert(other, "9", if_version=7),
                        upsert(third, "10", if_version=2),
                        upsert(fourth, "11", if_version=8),
                    ]
                )
            ).results
            assert [one.reason for one in results] == ["", "", "CONFLICT", ""]
            await archive_changes(Store(store), log)
            assert archived(store, end.log_id) == [*expected, "8", "9", "11"] == await texts(log)


async def test_a_log_that_was_set_back_and_not_written_since_is_whole_again(tmp_path: Path) -> None:
    store, (doc, other) = tmp_path / "store", ids(2)
    async with pair(tmp_path) as (primary, replica):
        async with log_of(store, primary) as log:
            await log.append([upsert(doc, "1")])
            await until_equal((primary, replica))
            await replica.ask("REPLICAOF", "NO", "ONE")
            await log.append([upsert(doc, "2"), upsert(other, "3")])
            await archive_changes(Store(store), log)
        async with log_of(store, replica) as log, log_of(store, replica) as second:
            # Two processes at once.
            await asyncio.gather(*(archive_changes(Store(store), one) for one in (log, second)))
            assert await texts(log) == ["1", "2", "3"]
            await log.append([upsert(doc, "4")])
            end = (await archive_changes(Store(store), log)).end()
            assert archived(store, end.log_id) == ["1", "2", "3", "4"]

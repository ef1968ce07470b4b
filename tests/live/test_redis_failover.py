"""A Redis is killed under writes and another takes over: what was acknowledged survives."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from nearline.contract.recommendations import Interaction
from nearline.errors import NotReady
from nearline.store.snapshot import PARTITIONS
from nearline_cli.local.bundled_redis import HOST, find_program
from nearline_cli.local.processes import free_port
from retrieval.redis_client.connection import Redis, connect
from retrieval.redis_client.durability import Durability
from retrieval.users.states import UserStates
from tests.index_builder.ingest.submissions import job_store_of, submission, take_all, worker_of
from tests.local_cluster import ClusterProcess, LocalCluster
from tests.redis_cluster import give_replicated
from tests.redis_server import needs_redis
from tests.retrieval.changelog.log_writes import change_logs, upsert
from tests.waits import until

__all__ = ["give_replicated"]
pytestmark = [pytest.mark.service, pytest.mark.long, needs_redis]

ALL = dict.fromkeys(range(PARTITIONS), 0)


class Acknowledged:
    """Numbers of the writes that were acknowledged, by kind; and how many were refused."""

    def __init__(self) -> None:
        self.numbers: dict[str, set[int]] = {"change": set(), "event": set(), "job": set()}
        self.refused = 0

    async def write(
        self, kind: str, call: Callable[[int], Awaitable[object]], stop: asyncio.Event
    ) -> None:
        """Writes one number after another until told to stop; a refused one is not repeated."""
        for number in itertools.count():
            if stop.is_set():
                return
            try:
                await call(number)
            except NotReady:
                self.refused += 1
                await asyncio.sleep(0.01)
            else:
                self.numbers[kind].add(number)


async def until_acknowledged(kinds: Acknowledged, more: int) -> None:
    """Waits for this many more acknowledged writes of each kind."""
    goals = {kind: len(one) + more for kind, one in kinds.numbers.items()}
    async with asyncio.timeout(60):
        while any(len(kinds.numbers[kind]) < goal for kind, goal in goals.items()):
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def writing(folder: Path, url: str) -> AsyncIterator[Acknowledged]:
    """Writes changes, interactions and jobs for the length of the block."""
    client = connect(url, timeout_s=10.0, retries=0)
    states = UserStates(client, Durability(client))
    jobs = job_store_of(client)
    stop = asyncio.Event()
    kinds = Acknowledged()
    async with change_logs(folder, url, replicas=None) as logs:
        log = logs.log("default")
        await log.state()

        async def event(number: int) -> None:
            one = Interaction(item_id=f"i{number}", user_id=f"u{number}", kind="view")
            await states.record("default", [one])

        async with asyncio.TaskGroup() as group:
            for kind, call in (
                ("change", lambda number: log.append([upsert(f"d{number}")])),
                ("event", event),
                ("job", lambda number: jobs.submit(submission(f"job-{number}"))),
            ):
                group.create_task(kinds.write(kind, call, stop))
            try:
                yield kinds
            finally:
                stop.set()
    await client.aclose()


async def check_all_there(folder: Path, url: str, kinds: Acknowledged) -> None:
    """Checks that everything acknowledged is there."""
    client: Redis = connect(url, timeout_s=10.0, retries=0)
    async with change_logs(folder, url, replicas=None) as logs:
        reader = logs.reader("default")
        after, found = dict(ALL), set()
        while entries := await reader.read(after, limit=512):
            for entry in entries:
                after[entry.partition] = entry.position
                found.add(int(entry.change.document_id[1:]))
    assert kinds.numbers["change"] <= found
    states = UserStates(client, Durability(client))
    for number in kinds.numbers["event"]:
        state = await states.read("default", f"u{number}")
        assert [one.item_id for one in state.events] == [f"i{number}"]
    units = await take_all(worker_of(client))
    assert {f"job-{number}" for number in kinds.numbers["job"]} <= {one.job_id for one in units}
    await client.aclose()


async def test_a_killed_primary_of_a_cluster_loses_nothing_acknowledged(
    replicated: LocalCluster, tmp_path: Path
) -> None:
    async with writing(tmp_path, replicated.url) as kinds:
        # Each primary in turn: together they have all partitions, users and the queue.
        for primary, replica in zip(replicated.primaries, replicated.replicas, strict=True):
            await until_acknowledged(kinds, 50)
            await primary.kill()
            await until(replica.is_primary, timeout_s=30)
            # It has no replica of its own yet, so it acknowledges nothing.
            await primary.start()
            await until_acknowledged(kinds, 50)
            await replicated.wait_until_whole()
    assert kinds.refused
    await check_all_there(tmp_path, replicated.url, kinds)


@contextlib.asynccontextmanager
async def sentinels(primary: ClusterProcess, folder: Path) -> AsyncIterator[str]:
    """Runs three Sentinels that watch a server; gives the address to use."""
    ports = [free_port() for _ in range(3)]
    processes = []
    try:
        for port in ports:
            file = folder / f"{port}.conf"
            file.write_text(
                f"port {port}\nbind {HOST}\ndir {folder}\n"
                f"sentinel monitor main {HOST} {primary.port} 2\n"
                "sentinel down-after-milliseconds main 500\n"
                "sentinel failover-timeout main 5000\n"
            )
            processes.append(
                await asyncio.create_subprocess_exec(
                    *(str(find_program()), str(file), "--sentinel"),
                    stdout=asyncio.subprocess.DEVNULL,
                )
            )
        for port in ports:
            watcher: Any = connect(f"redis://{HOST}:{port}/0")
            async with asyncio.timeout(30):
                while True:
                    with contextlib.suppress(Exception):
                        words = await watcher.execute_command("SENTINEL", "MASTER", "main")
                        found = dict(zip(words[::2], words[1::2], strict=True))
                        if (found[b"num-slaves"], found[b"num-other-sentinels"]) == (b"1", b"2"):
                            break
                    await asyncio.sleep(0.05)
            await watcher.aclose()
        yield "redis+sentinel://" + ",".join(f"{HOST}:{port}" for port in ports) + "/main"
    finally:
        for process in processes:
            process.kill()
            await process.wait()


# redis-py drops its connection to the killed server without closing it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_killed_server_that_sentinel_watches_loses_nothing_acknowledged(
    tmp_path: Path,
) -> None:
    primary, replica = (
        ClusterProcess(tmp_path / name, {"cluster-enabled": "no", "repl-diskless-sync-delay": "0"})
        for name in ("primary", "replica")
    )
    try:
        await primary.start()
        await replica.start()
        await replica.ask("REPLICAOF", HOST, primary.port)
        await until(replica.in_sync, timeout_s=30)
        async with sentinels(primary, tmp_path) as url:
            async with writing(tmp_path / "store", url) as kinds:
                await until_acknowledged(kinds, 100)
                await primary.kill()
                await until(replica.is_primary, timeout_s=30)
                await primary.start()
                await until_acknowledged(kinds, 100)
            assert kinds.refused
            await check_all_there(tmp_path / "store", url, kinds)
    finally:
        await primary.close()
        await replica.close()

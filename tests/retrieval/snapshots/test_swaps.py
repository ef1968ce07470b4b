"""Real processes swap snapshots while requests are answered."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import numpy as np
import pytest

from nearline import contract as c
from nearline.clients import AdminClient, RetrievalClient
from nearline.errors import NearlineError, NotFound, SnapshotGone
from nearline.store.snapshot import Store
from nearline.v1 import admin_pb2, snapshot_pb2
from nearline_cli.local.processes import (
    RETRIEVAL_SERVICES,
    SHARD_SERVICES,
    ServiceProcess,
    free_port,
    service_process,
)
from retrieval.shards.client import ShardClient
from retrieval.snapshots import aliases
from tests.retrieval.small_snapshots import FORCED, Document, write_snapshot

pytestmark = pytest.mark.service
DIM = 4
QUERY = c.Query(vector=np.ones(DIM, np.float32))
EVERYTHING = c.SearchOptions(k=60, payload=frozenset({c.PayloadField.TEXT}))
QUICK = ("--drain-s", "0", "--alias-poll-s", "0.05", "--snapshot-drain-s", "1")


def make(root: Path, stamp: str, *, promote: bool = False, collection: str = "default") -> str:
    """Writes a snapshot of 60 documents in 2 shards whose texts are its stamp."""
    rows = np.random.default_rng(3).integers(1, 4, (60, DIM)).astype(np.float32)
    documents = [
        Document(id=f"d{n:02d}", vectors=rows[n : n + 1], text=stamp, bounds=[(0, len(stamp))])
        for n in range(60)
    ]
    return write_snapshot(root, documents, shards=2, promote=promote, collection=collection)


def router(root: Path, *arguments: str) -> AbstractAsyncContextManager[ServiceProcess]:
    return service_process(
        "retrieval",
        ["--store", str(root), *QUICK, *arguments],
        ready_services=RETRIEVAL_SERVICES,
    )


def shard_server(root: Path, *arguments: str) -> AbstractAsyncContextManager[ServiceProcess]:
    return service_process(
        "retrieval.shard_server",
        ["--store", str(root), *QUICK, *arguments],
        ready_services=SHARD_SERVICES,
    )


@contextlib.asynccontextmanager
async def cluster(root: Path) -> AsyncIterator[tuple[ServiceProcess, list[ServiceProcess]]]:
    """A router over two servers, each with both shards."""
    async with shard_server(root) as one, shard_server(root) as two:
        held = f"{one.address},{two.address}"
        async with router(root, "--shards", f"0={held};1={held}") as service:
            yield service, [one, two]


async def until(
    admin: AdminClient, wanted: Callable[[admin_pb2.CollectionStatus], bool]
) -> admin_pb2.CollectionStatus:
    """Waits until the status of the first collection meets a condition."""
    async with asyncio.timeout(20):
        while True:
            status = (await admin.serving_status()).collections[0]
            if wanted(status):
                return status
            await asyncio.sleep(0.02)


class Callers:
    """Four callers that search continuously until they are stopped."""

    def __init__(self, client: RetrievalClient, stamps: dict[str, str]) -> None:
        self.failed: list[str] = []
        self.mixed: list[object] = []
        self.epochs: set[int] = set()
        self._client, self._stamps = client, stamps
        self._go_on = True

    async def __aenter__(self) -> Callers:
        self._tasks = [asyncio.ensure_future(self._ask()) for _ in range(4)]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._go_on = False
        await asyncio.gather(*self._tasks)

    async def _ask(self) -> None:
        while self._go_on:
            try:
                reply = await self._client.search(QUERY, EVERYTHING, timeout_s=10)
            except NearlineError as error:
                self.failed.append(repr(error))
                continue
            found = {hit.text for hit in reply.hits}
            if found != {self._stamps[reply.info.snapshot_id]} or len(reply.hits) != 60:
                self.mixed.append((found, len(reply.hits), reply.info.coverage))
            self.epochs.add(reply.info.epoch)


async def test_swaps_under_load_cause_no_errors(tmp_path: Path) -> None:
    stamps = {make(tmp_path, f"s{n}", promote=n == 0): f"s{n}" for n in range(3)}
    ids = list(stamps)
    async with (
        cluster(tmp_path) as (service, servers),
        RetrievalClient(service.address) as client,
        AdminClient(service.address) as admin,
    ):
        async with Callers(client, stamps) as callers:
            for number in range(1, 7):
                record = await admin.promote(ids[number % 3], expected_epoch=number, gate=FORCED)
                await until(admin, lambda s, e=record.epoch: s.epoch == e)  # type: ignore[misc]
        assert (callers.failed, callers.mixed) == ([], [])
        assert callers.epochs >= set(range(2, 7))
        # The ones before drain away, on the router and on the servers.
        status = await until(admin, lambda s: len(s.loaded_snapshot_ids) == 1)
        assert list(status.loaded_snapshot_ids) == [ids[0]]
        for server in servers:
            async with ShardClient(server.address) as shards, asyncio.timeout(10):
                while {one.snapshot_id for one in await shards.status(5)} != {ids[0]}:
                    await asyncio.sleep(0.05)
        with pytest.raises(SnapshotGone):
            await client.search(QUERY, c.SearchOptions(snapshot_id=ids[1]))


async def test_a_server_that_dies_between_swaps_returns_to_the_current_snapshot(
    tmp_path: Path,
) -> None:
    stamps = {make(tmp_path, f"s{n}", promote=n == 0): f"s{n}" for n in range(2)}
    ids = list(stamps)
    async with (
        cluster(tmp_path) as (service, servers),
        RetrievalClient(service.address) as client,
        AdminClient(service.address) as admin,
        Callers(client, stamps) as callers,
    ):
        os.kill(servers[0].pid, signal.SIGKILL)
        await servers[0].wait()
        await admin.promote(ids[1], gate=FORCED)
        await until(admin, lambda s: s.epoch == 2)
        async with shard_server(tmp_path, "--port", servers[0].address.rpartition(":")[2]) as back:
            async with ShardClient(back.address) as shards:
                held = {one.snapshot_id for one in await shards.status(5)}
            assert ids[1] in held
    assert (callers.failed, callers.mixed) == ([], [])


@pytest.mark.parametrize("remote", [False, True])
async def test_a_corrupt_snapshot_never_goes_live(tmp_path: Path, remote: bool) -> None:
    good, bad, better = (make(tmp_path, f"s{n}", promote=n == 0) for n in range(3))
    path = Store(tmp_path).snapshot_folder("default", bad) / "shards/001/items.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    async with contextlib.AsyncExitStack() as stack:
        more: tuple[str, ...] = ()
        if remote:
            server = await stack.enter_async_context(shard_server(tmp_path))
            more = ("--shards", f"0={server.address};1={server.address}")
        service = await stack.enter_async_context(router(tmp_path, *more))
        client = await stack.enter_async_context(RetrievalClient(service.address))
        admin = await stack.enter_async_context(AdminClient(service.address))
        aliases.promote(Store(tmp_path), "default", bad, verify=False)
        status = await until(admin, lambda s: bool(s.problem))
        assert (status.epoch, status.snapshot_id) == (1, good)
        assert (status.newest_epoch, status.newest_snapshot_id) == (2, bad)
        assert re.search(r"SnapshotCorrupt: .*the manifest says", status.problem)
        reply = await client.search(QUERY, EVERYTHING)
        assert {hit.text for hit in reply.hits} == {"s0"}
        # A restart finds the bad one current, and serves the one before it.
        async with router(tmp_path, *more) as again, AdminClient(again.address) as other:
            status = (await other.serving_status()).collections[0]
            assert (status.snapshot_id, bool(status.problem)) == (good, True)
        await admin.promote(better, gate=FORCED)
        status = await until(admin, lambda s: s.epoch == 3)
        assert (status.snapshot_id, status.problem) == (better, "")


async def test_a_snapshot_that_does_not_fit_is_rejected(tmp_path: Path) -> None:
    small, large = (make(tmp_path, f"s{n}", promote=n == 0) for n in range(2))
    path = Store(tmp_path).snapshot_folder("default", large) / "manifest.json"
    path.write_text(re.sub(r'"bytes": "\d+"', f'"bytes": "{10**15}"', path.read_text()))
    async with router(tmp_path) as service, AdminClient(service.address) as admin:
        aliases.promote(Store(tmp_path), "default", large, verify=False)
        status = await until(admin, lambda s: bool(s.problem))
        assert status.snapshot_id == small
        assert re.search(r"Overloaded: .*4000000000000000 bytes.* \d+ are free", status.problem)


async def test_a_collection_that_appears_later_is_served(tmp_path: Path) -> None:
    make(tmp_path, "first", promote=True)
    async with router(tmp_path) as service, RetrievalClient(service.address) as client:
        make(tmp_path, "second", promote=True, collection="later")
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(NearlineError):
                    reply = await client.search(QUERY, EVERYTHING, collection="later")
                    break
                await asyncio.sleep(0.05)
        assert {hit.text for hit in reply.hits} == {"second"}


async def test_a_router_killed_while_it_loads_starts_on_the_newest(tmp_path: Path) -> None:
    make(tmp_path, "s0", promote=True)
    new = make(tmp_path, "s1")
    port = str(free_port())
    async with router(tmp_path, "--port", port) as service:
        aliases.promote(Store(tmp_path), "default", new)
        os.kill(service.pid, signal.SIGKILL)
        await service.wait()
    async with router(tmp_path, "--port", port) as service, AdminClient(service.address) as admin:
        status = (await admin.serving_status()).collections[0]
        assert (status.snapshot_id, status.epoch) == (new, 2)


async def test_the_alias_can_move_on_from_a_bad_snapshot(tmp_path: Path) -> None:
    first, second = (make(tmp_path, f"s{n}", promote=n == 0) for n in range(2))
    store = Store(tmp_path)
    async with router(tmp_path) as service, AdminClient(service.address) as admin:
        lost = snapshot_pb2.AliasRecord(epoch=2, current="20260101T000000Z-000000", who="test")
        store.create_alias_record("default", lost)
        status = await until(admin, lambda s: bool(s.problem))
        assert "NotFound: collection 'default' has no snapshot 2026" in status.problem
        aliases.promote(store, "default", second)
        await until(admin, lambda s: s.snapshot_id == second)
        with pytest.raises(NotFound, match="has no snapshot 20260101"):
            await admin.roll_back()
        record = await admin.promote(first, who="me", why="to see", gate=FORCED)
        assert (record.epoch, record.who, record.why) == (4, "me", "to see")
        assert (await admin.roll_back()).current == second

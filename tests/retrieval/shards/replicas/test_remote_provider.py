"""Which snapshots servers are told to load, and when a snapshot may be served."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from nearline.errors import NotReady, SettingsError, SnapshotCorrupt
from nearline.retry import Backoff
from nearline.v1 import snapshot_pb2
from retrieval.live.progress import ShardProgress
from retrieval.protocols.snapshot import SnapshotRef
from retrieval.protocols.watermark import AppliedState, Watermark
from retrieval.shards.client import ShardKey
from retrieval.shards.replicas import remote_provider, replica, rolling_loader
from retrieval.shards.replicas.remote_provider import RemoteShardProvider
from retrieval.snapshots.memory import MemoryLimit
from tests.waits import until


class Server:
    """A server of one shard that loads a snapshot once its door is open. error: Raised instead."""

    def __init__(self, address: str, shard: int) -> None:
        self.address = address
        self.shard = shard
        self.held: frozenset[ShardKey] = frozenset()
        self.loads: list[tuple[str, str]] = []
        self.error: Exception | None = None
        self.door = asyncio.Event()
        self.door.set()
        self.away = False
        self.progress: ShardProgress | None = None
        self.memory = [MemoryLimit(shard, 2)]
        self.closed = False

    async def status(self, timeout_s: float) -> dict[ShardKey, ShardProgress | None]:
        if self.away:
            raise NotReady("connection refused")
        return dict.fromkeys(self.held, self.progress)

    async def load(self, collection: str, snapshot_id: str) -> None:
        self.loads.append((collection, snapshot_id))
        await self.door.wait()
        if self.error is not None:
            raise self.error
        self.held |= {ShardKey(collection, snapshot_id, self.shard)}

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Server]:
    known = {"a:1": Server("a:1", 0), "b:1": Server("b:1", 1)}
    monkeypatch.setattr(remote_provider, "ShardClient", known.__getitem__)
    monkeypatch.setattr(remote_provider, "_POLL_S", 0.001)
    monkeypatch.setattr(replica, "_POLL_S", 0.001)
    monkeypatch.setattr(rolling_loader, "_POLL_S", 0.001)
    monkeypatch.setattr(rolling_loader, "_BACKOFF", Backoff(0.001))
    return known


@contextlib.asynccontextmanager
async def provider_of(wait_s: float = 20.0) -> AsyncIterator[RemoteShardProvider]:
    provider = RemoteShardProvider({0: ["a:1"], 1: ["b:1"]}, wait_s)
    try:
        yield provider
    finally:
        await provider.close()


def snapshot(snapshot_id: str, collection: str = "default", shards: int = 2) -> SnapshotRef:
    entries = [snapshot_pb2.ShardEntry(shard=number) for number in range(shards)]
    manifest = snapshot_pb2.Manifest(snapshot_id=snapshot_id, shards=entries)
    return SnapshotRef(collection=collection, epoch=1, manifest=manifest)


async def lose_all(server: Server, loaded_again: tuple[str, str]) -> None:
    """Takes all snapshots from a server, twice, and waits until this one is there again."""
    for _ in range(2):
        before = server.loads.count(loaded_again)
        server.held = frozenset()
        await until(lambda before=before: server.loads.count(loaded_again) > before)  # type: ignore[misc]


async def test_servers_that_lost_everything_are_told_to_load_the_latest_snapshot_only(
    servers: dict[str, Server],
) -> None:
    async with provider_of() as provider:
        for one in ("s1", "s2"):
            shards = await provider.prepare(snapshot(one))
            assert [await shard.ready(one) for shard in shards] == [1, 1]
        server = servers["a:1"]
        await lose_all(server, ("default", "s2"))
        assert server.loads.count(("default", "s1")) == 1


async def test_a_snapshot_of_one_collection_does_not_replace_those_of_others(
    servers: dict[str, Server],
) -> None:
    async with provider_of() as provider:
        await provider.prepare(snapshot("s1", "books"))
        await provider.prepare(snapshot("s2", "films"))
        server = servers["a:1"]
        await lose_all(server, ("books", "s1"))
        await until(lambda: server.loads.count(("films", "s2")) > 1)


async def test_a_released_snapshot_is_not_loaded_again(servers: dict[str, Server]) -> None:
    async with provider_of() as provider:
        await provider.prepare(snapshot("s1", "books"))
        await provider.prepare(snapshot("s2", "films"))
        await provider.release("books", "s1")
        server = servers["a:1"]
        await lose_all(server, ("films", "s2"))
        assert server.loads.count(("books", "s1")) == 1


async def test_the_first_snapshot_may_lack_a_shard_and_later_ones_may_not(
    servers: dict[str, Server],
) -> None:
    servers["b:1"].error = NotReady("no such file")
    async with provider_of(wait_s=0.05) as provider:
        first = await provider.prepare(snapshot("s1"))
        assert [await shard.ready("s1") for shard in first] == [1, 0]
        with pytest.raises(NotReady, match=r"shard 1 of 'default' \(s2\) not ready.*b:1"):
            await provider.prepare(snapshot("s2"))
        # The servers go on loading it, so another attempt may succeed.
        servers["b:1"].error = None
        await until(lambda: ShardKey("default", "s2", 1) in servers["b:1"].held)
        assert len(await provider.prepare(snapshot("s2"))) == 2


async def test_a_load_may_take_longer_than_the_wait_for_a_server(
    servers: dict[str, Server],
) -> None:
    servers["b:1"].door.clear()
    async with provider_of(wait_s=0.01) as provider:
        ready = asyncio.ensure_future(provider.prepare(snapshot("s1")))
        await until(lambda: servers["b:1"].loads == [("default", "s1")])
        loop = asyncio.get_running_loop()
        late = loop.time() + 0.05
        await until(lambda: loop.time() > late)
        assert not ready.done()
        servers["b:1"].door.set()
        assert [await shard.ready("s1") for shard in await ready] == [1, 1]


async def test_a_first_snapshot_without_any_shard_is_not_served(
    servers: dict[str, Server],
) -> None:
    for server in servers.values():
        server.error = NotReady("no such file")
    async with provider_of(wait_s=0.05) as provider:
        with pytest.raises(NotReady, match="shard 0, 1 of 'default'"):
            await provider.prepare(snapshot("s1"))


async def test_a_faulty_snapshot_is_refused_without_waiting(servers: dict[str, Server]) -> None:
    servers["b:1"].error = SnapshotCorrupt("a bad file")
    async with provider_of() as provider:
        with pytest.raises(SnapshotCorrupt, match="a bad file"):
            await provider.prepare(snapshot("s1"))


async def test_a_snapshot_with_as_many_shards_as_there_are_addresses_is_the_largest_allowed(
    servers: dict[str, Server],
) -> None:
    async with provider_of() as provider:
        assert len(await provider.prepare(snapshot("s1", shards=1))) == 1
        with pytest.raises(SettingsError, match="has 3 shards, --shards names 2"):
            await provider.prepare(snapshot("s2", shards=3))


async def test_a_closed_provider_leaves_nothing_running(servers: dict[str, Server]) -> None:
    before = asyncio.all_tasks()
    async with provider_of() as provider:
        await provider.prepare(snapshot("s1", "books"))
        await provider.prepare(snapshot("s2", "films"))
    assert asyncio.all_tasks() == before
    assert all(server.closed for server in servers.values())


async def test_the_progress_of_reachable_servers_that_hold_a_shard_is_reported(
    servers: dict[str, Server],
) -> None:
    progress = ShardProgress(applied=AppliedState(Watermark("log", (3,) * 64)), rows=7)
    async with provider_of() as provider:
        assert provider.progress("default", "s1") == {}
        servers["b:1"].progress = progress
        await provider.prepare(snapshot("s1"))
        # The server of shard 0 follows no change log.
        assert provider.progress("default", "s1") == {1: [progress]}
        assert provider.progress("default", "s2") == provider.progress("books", "s1") == {}
        servers["b:1"].away = True
        await until(lambda: provider.progress("default", "s1") == {})


async def test_the_memory_of_reachable_servers_is_reported(servers: dict[str, Server]) -> None:
    async with provider_of() as provider:
        assert provider.server_memory() == {}
        await provider.prepare(snapshot("s1"))
        both = {"a:1": [MemoryLimit(0, 2)], "b:1": [MemoryLimit(1, 2)]}
        await until(lambda: provider.server_memory() == both)
        servers["b:1"].away = True
        await until(lambda: provider.server_memory() == {"a:1": [MemoryLimit(0, 2)]})

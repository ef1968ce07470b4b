"""Loading a snapshot on servers: group order, repeated loads, refusals and faults."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence, Set

import pytest

from nearline.errors import DeadlineExceeded, NearlineError, NotReady, Overloaded, SnapshotCorrupt
from nearline.retry import Backoff
from retrieval.live.progress import ShardProgress
from retrieval.shards.client import ShardKey
from retrieval.shards.replicas import rolling_loader as loading_module
from retrieval.shards.replicas.replica import Replica
from retrieval.shards.replicas.rolling_loader import SnapshotLoader
from retrieval.shards.topology import replica_groups
from tests.waits import until


class Server:
    """A server that loads its shard when the test allows it, and records the order of calls."""

    def __init__(self, address: str, calls: list[str], shard: int = 0) -> None:
        self.address = address
        self.key = ShardKey("default", "s1", shard)
        self.held: frozenset[ShardKey] = frozenset()
        self.error: NearlineError | None = None
        self.status_error: NearlineError | None = None
        self.door = asyncio.Event()
        self._calls = calls

    async def status(self, timeout_s: float) -> dict[ShardKey, ShardProgress | None]:
        if self.status_error is not None:
            raise self.status_error
        return dict.fromkeys(self.held)

    async def load(self, collection: str, snapshot_id: str) -> None:
        self._calls.append(self.address)
        await self.door.wait()
        if self.error is not None:
            raise self.error
        self.held = frozenset({self.key})


@contextlib.asynccontextmanager
async def loading_on(
    groups: Sequence[Mapping[Server, Set[int]]],
) -> AsyncIterator[tuple[SnapshotLoader[Server], dict[Server, Replica[Server]]]]:
    replicas = {server: Replica(server) for group in groups for server in group}
    for replica in replicas.values():
        await replica.poll()
    loading = SnapshotLoader(
        "default",
        "s1",
        [{replicas[server]: held for server, held in group.items()} for group in groups],
    )
    try:
        yield loading, replicas
    finally:
        await loading.close()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading_module, "_POLL_S", 0.01)
    monkeypatch.setattr(loading_module, "_BACKOFF", Backoff(0.01))


async def test_a_group_loads_when_the_group_before_has() -> None:
    calls: list[str] = []
    a, b, c, d = (Server(name, calls, number % 2) for number, name in enumerate("abcd"))
    async with loading_on([{a: {0}, b: {1}}, {c: {0}, d: {1}}]) as (loading, replicas):
        await until(lambda: calls == ["a", "b"])
        assert loading.is_loading()
        a.door.set()
        await until(lambda: replicas[a].holds(a.key))
        assert calls == ["a", "b"]
        b.door.set()
        await until(lambda: calls == ["a", "b", "c", "d"])
        assert replicas[b].holds(b.key)


async def test_servers_that_lost_the_snapshot_or_start_late_are_told_again() -> None:
    calls: list[str] = []
    a, b = Server("a", calls), Server("b", calls)
    b.status_error = NotReady("connection refused")
    for server in (a, b):
        server.door.set()
    async with loading_on([{a: {0}}, {b: {0}}]) as (_, replicas):
        await until(lambda: replicas[a].holds(a.key))
        assert calls == ["a"]
        b.status_error = None
        await replicas[b].poll()
        await until(lambda: replicas[b].holds(b.key))
        a.held = frozenset()
        await replicas[a].poll()
        await until(lambda: replicas[a].holds(a.key))
        assert calls == ["a", "b", "a"]


async def test_the_snapshot_is_at_fault_once_all_replicas_of_a_shard_say_so() -> None:
    calls: list[str] = []
    a, b, c = Server("a", calls), Server("b", calls), Server("c", calls, 1)
    a.error, b.error = SnapshotCorrupt("a bad file"), SnapshotCorrupt("a bad file")
    for server in (a, c):
        server.door.set()
    async with loading_on([{a: {0}, c: {1}}, {b: {0}}]) as (loading, _):
        await until(lambda: loading.refusal([0]) is a.error)
        await until(lambda: "b" in calls)
        assert loading.fault([0]) is None
        b.door.set()
        await until(lambda: loading.fault([0, 1]) is not None)
        assert loading.fault([1]) is None


async def test_a_lack_of_memory_is_reported_but_is_not_a_fault_of_the_snapshot() -> None:
    calls: list[str] = []
    a = Server("a", calls)
    a.error = Overloaded("needs 12 bytes, 3 are free")
    a.door.set()
    async with loading_on([{a: {0}}]) as (loading, replicas):
        await until(lambda: loading.refusal([0]) is not None)
        assert loading.fault([0]) is None
        a.error = None
        await until(lambda: replicas[a].holds(a.key))
        assert loading.refusal([0]) is None


async def test_a_silent_server_does_not_keep_the_next_group_waiting() -> None:
    calls: list[str] = []
    a, b = Server("a", calls), Server("b", calls)
    b.door.set()
    async with loading_on([{a: {0}}, {b: {0}}]) as (_, replicas):
        await until(lambda: calls == ["a"])
        a.status_error = DeadlineExceeded("no answer in time")
        await replicas[a].poll()
        await until(lambda: replicas[b].holds(b.key))


def test_replica_group_n_holds_the_nth_address_of_each_shard() -> None:
    topology = {0: ("a", "b"), 1: ("c", "b"), 2: ("c",), 3: ("d", "e", "f")}
    assert replica_groups(topology, 3) == [{"a": {0}, "c": {1, 2}}, {"b": {0, 1}}, {}]

"""One snapshot per request: pinned, or repeated as a whole on another one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from nearline import contract as c
from nearline.errors import NotFound, NotReady, SnapshotGone
from nearline.store.snapshot import Store
from retrieval.embedders.endpoints import Embedders
from retrieval.protocols.shard import Shard, ShardHits, ShardOptions, ShardQueries
from retrieval.protocols.snapshot import SnapshotRef, read_current_snapshots, read_snapshot_ref
from retrieval.rollout.collections import ServedCollections
from retrieval.router.service import RetrievalService
from retrieval.search.collection import ServedCollection
from retrieval.shards.local_provider import LocalShardProvider
from retrieval.snapshots.follower import AliasFollower
from tests.retrieval.fakes import FailingShard
from tests.retrieval.small_snapshots import documents_of, write_snapshot
from tests.waits import until

QUERY = c.Query(vector=np.ones(2, np.float32))
GONE = FailingShard(SnapshotGone("it was unloaded"))


def two_snapshots(root: Path) -> tuple[SnapshotRef, SnapshotRef]:
    """Returns an older snapshot with 2 shards and the current one."""
    documents = documents_of(np.ones((40, 2), np.float32))
    old = write_snapshot(root, documents, shards=2)
    write_snapshot(root, documents, shards=2)
    store = Store(root)
    return read_snapshot_ref(store, "default", old, 1), read_current_snapshots(store, ())[0]


class Cluster:
    """A service with given shards of the old snapshot and real shards of the new one."""

    def __init__(self, root: Path) -> None:
        self.old, self.new = two_snapshots(root)
        self.hosting = LocalShardProvider(Store(root), 1)
        self.collections = ServedCollections()
        self.service = RetrievalService(Embedders({}), self.collections)

    async def serve_old(self, *shards: Shard) -> None:
        real = await self.hosting.prepare(self.old)
        chosen = [*shards, *real[len(shards) :]]
        self.service.serve(ServedCollection(self.old, chosen))

    async def serve_new(self) -> None:
        shards = await self.hosting.prepare(self.new)
        self.service.serve(ServedCollection(self.new, shards))


class FlipsFirst(FailingShard):
    """Makes the new snapshot current, then reports the old one as released."""

    def __init__(self, new: ServedCollection, service: RetrievalService) -> None:
        super().__init__(SnapshotGone("it was unloaded"))
        self._new, self._service = new, service

    def search(
        self,
        snapshot_id: str,
        queries: ShardQueries,
        options: ShardOptions,
        deadline: float | None = None,
    ) -> asyncio.Future[Sequence[ShardHits]]:
        self._service.serve(self._new)
        return super().search(snapshot_id, queries, options, deadline)


async def test_a_late_request_is_repeated_on_the_current_snapshot(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    new = ServedCollection(cluster.new, await cluster.hosting.prepare(cluster.new))
    await cluster.serve_old(FlipsFirst(new, cluster.service))
    reply = await cluster.service.search(QUERY, c.SearchOptions(k=40))
    assert (reply.info.snapshot_id, reply.info.epoch) == (cluster.new.snapshot_id, 2)
    assert len(reply.hits) == 40
    assert reply.info.coverage.missing_shards == ()
    await cluster.hosting.close()


async def test_a_request_that_names_its_snapshot_is_not_retried_on_another(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    await cluster.serve_old()
    await cluster.serve_new()
    named = c.SearchOptions(snapshot_id=cluster.old.snapshot_id)
    assert (await cluster.service.search(QUERY, named)).info.snapshot_id == named.snapshot_id
    cluster.collections.loaded.add(
        "default", cluster.old.snapshot_id, ServedCollection(cluster.old, [GONE, GONE])
    )
    with pytest.raises(SnapshotGone, match="unloaded"):
        await cluster.service.search(QUERY, named)
    with pytest.raises(SnapshotGone, match=f"{cluster.new.snapshot_id} is; retry"):
        await cluster.service.search(QUERY, c.SearchOptions(snapshot_id="20260101T000000Z-000000"))
    await cluster.hosting.close()


async def test_a_listing_continues_on_its_first_snapshot(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    await cluster.serve_old()
    first = await cluster.service.list_items(page_size=30)
    await cluster.serve_new()
    rest = await cluster.service.list_items(page_size=30, page_token=first.next_page_token)
    assert {first.info.snapshot_id, rest.info.snapshot_id} == {cluster.old.snapshot_id}
    assert len({item.id for item in (*first.items, *rest.items)}) == 40
    await cluster.hosting.close()


async def test_a_snapshot_in_use_is_unloaded_after_the_request(tmp_path: Path) -> None:
    old, new = two_snapshots(tmp_path)
    unloaded: list[str] = []

    async def load(snapshot: SnapshotRef) -> ServedCollection:
        return ServedCollection(snapshot, [])

    async def unload(collection: str, snapshot_id: str) -> None:
        unloaded.append(snapshot_id)

    collections = ServedCollections(drain_s=0.0)
    collections.serve(await load(old))
    follower = AliasFollower(
        Store(tmp_path),
        (),
        collections.loaded,
        load=load,
        unload=unload,
        poll_s=3600,
    )
    go_on = asyncio.Event()

    async def ask(served: ServedCollection) -> str:
        await go_on.wait()
        return served.snapshot_id

    request = asyncio.ensure_future(collections.answer("default", ask))
    await asyncio.sleep(0)
    await follower.start()
    assert [one.snapshot_id for one in collections.in_force] == [new.snapshot_id]
    await follower.poll()
    assert collections.loaded.get("default", old.snapshot_id) is not None
    go_on.set()
    assert await request == old.snapshot_id
    await follower.poll()
    await until(lambda: unloaded, 5)
    assert unloaded == [old.snapshot_id]
    await follower.close()


async def test_unserved_names_raise_distinct_errors() -> None:
    collections = ServedCollections()

    async def ask(served: ServedCollection) -> None:
        raise AssertionError

    with pytest.raises(NotReady, match="no collection is loaded yet"):
        await collections.answer("default", ask)


async def test_an_unknown_collection_names_the_known_ones(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    await cluster.serve_new()
    with pytest.raises(NotFound, match="closest names are: 'default'"):
        await cluster.service.search(QUERY, collection="defualt")
    await cluster.hosting.close()

"""Shards of snapshots in Milvus: readiness, release and reads."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import pytest_asyncio

from nearline import filters as f
from nearline.contract import Item, PayloadField
from nearline.errors import (
    DeadlineExceeded,
    NotReady,
    SnapshotGone,
    SnapshotMismatch,
    Unsupported,
)
from nearline.store.snapshot import Store
from nearline.times import to_us
from nearline.v1 import snapshot_pb2
from retrieval.protocols.shard import (
    CountRequest,
    ItemsRequest,
    ScanRequest,
    ShardOptions,
    ShardQueries,
)
from retrieval.protocols.snapshot import SnapshotRef, read_current_snapshots
from retrieval.protocols.watermark import Watermark
from tests.retrieval.segment_pairs import FIELDS, random_document
from tests.retrieval.small_snapshots import write_snapshot

if TYPE_CHECKING:
    from retrieval.milvus.client import MilvusClient
    from retrieval.milvus.provider import MilvusShardProvider
    from retrieval.milvus.shard import MilvusShard

pytestmark = [pytest.mark.milvus, pytest.mark.asyncio(loop_scope="module")]
VECTORS = np.array([[1, 0, -1, 1], [0, 1, 0, 0], [-1, 1, 1, 0]], np.float32)
NONE = frozenset[PayloadField]()
ALL = frozenset(PayloadField)
DOCUMENTS = 60


class Held:
    """A snapshot in a Milvus."""

    def __init__(self, client: MilvusClient, store: Path, snapshot: SnapshotRef) -> None:
        from retrieval.milvus.layout import collection_name

        self.client = client
        self.store = store
        self.snapshot = snapshot
        self.id = snapshot.snapshot_id
        self.name = collection_name(snapshot.collection, snapshot.snapshot_id)

    async def export(self) -> None:
        from index_builder.indexes.milvus_writer import export

        await export(
            Store(self.store), self.snapshot.collection, self.id, self.client, index="FLAT"
        )

    @contextlib.asynccontextmanager
    async def hosting(self) -> AsyncIterator[MilvusShardProvider]:
        """Yields shards with a connection of their own."""
        from retrieval.milvus.client import MilvusClient
        from retrieval.milvus.provider import MilvusShardProvider

        shards = MilvusShardProvider(Store(self.store), MilvusClient(self.client.uri))
        try:
            yield shards
        finally:
            await shards.close()


def snapshot_in(store: Path) -> SnapshotRef:
    """Writes a snapshot of which two documents expire, one of them long ago."""
    rng = np.random.default_rng(3)
    documents = [random_document(rng, f"d{number:03d}") for number in range(DOCUMENTS)]
    documents[5].expires = to_us(datetime.now(UTC) - timedelta(days=1))
    documents[6].expires = to_us(datetime.now(UTC) + timedelta(days=1))
    write_snapshot(store, documents, fields=FIELDS, language="none")
    (snapshot,) = read_current_snapshots(Store(store), ())
    return snapshot


@contextlib.asynccontextmanager
async def holding(uri: str, store: Path) -> AsyncIterator[Held]:
    """Yields a snapshot, and drops it from Milvus afterwards."""
    from retrieval.milvus.client import MilvusClient
    from retrieval.milvus.collection_state import CollectionStates

    client = MilvusClient(uri, timeout_s=30.0)
    held = Held(client, store, snapshot_in(store))
    try:
        yield held
    finally:
        await client.drop(held.name)
        await CollectionStates(client).remove(held.name)
        await client.close()


@pytest_asyncio.fixture(loop_scope="module")
async def held(milvus_uri: str, tmp_path: Path) -> AsyncIterator[Held]:
    """Returns a snapshot that is not in Milvus yet."""
    async with holding(milvus_uri, tmp_path) as held:
        yield held


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def there(
    milvus_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[MilvusShard, str]]:
    """Returns the shard of a snapshot that is in Milvus, and the snapshot's id."""
    async with holding(milvus_uri, tmp_path_factory.mktemp("store")) as held:
        await held.export()
        async with held.hosting() as shards:
            yield (await shards.prepare(held.snapshot))[0], held.id


async def test_an_incomplete_export_is_not_ready_and_names_the_remedy(
    held: Held,
) -> None:
    from retrieval.milvus.collection_state import CollectionStates

    states = CollectionStates(held.client)
    async with held.hosting() as shards:
        for _ in range(2):
            with pytest.raises(
                NotReady, match=f"is not in Milvus .* export {held.id} .*--to milvus"
            ):
                await shards.prepare(held.snapshot)
        await held.export()
        state = await states.read(held.name)
        assert state is not None
        for changed, kind, wanted in (
            ({"whole": False}, NotReady, "incomplete in Milvus"),
            ({"documents": 7}, SnapshotMismatch, "60 documents .* but 7 .*--again"),
            ({"partition_by": "kind"}, SnapshotMismatch, "partitioned by 'kind'.* export"),
        ):
            await states.write(held.name, dataclasses.replace(state, **changed))
            with pytest.raises(kind, match=wanted):
                await shards.prepare(held.snapshot)
        await states.write(held.name, state)
        (shard,) = await shards.prepare(held.snapshot)
        assert await shard.ready(held.id)
        assert (await shards.prepare(held.snapshot))[0] is shard


async def test_a_snapshot_that_lost_its_rows_is_not_ready(held: Held) -> None:
    await held.export()
    await held.client.delete(held.name, "chunk >= 0")
    # What is read after this has seen the delete.
    assert await held.client.count(held.name, seen=0) == 0
    async with held.hosting() as shards:
        with pytest.raises(NotReady, match=r"has lost all of its rows; .* --again"):
            await shards.prepare(held.snapshot)


async def test_a_released_snapshot_is_gone_here_only(held: Held) -> None:
    await held.export()
    async with held.hosting() as shards, held.hosting() as others:
        (shard,) = await shards.prepare(held.snapshot)
        (other,) = await others.prepare(held.snapshot)
        collection = held.snapshot.collection
        await shards.release(collection, held.id)
        assert not await shard.ready(held.id)
        for call in (
            shard.search(held.id, ShardQueries(VECTORS), ShardOptions(3)),
            shard.fetch(held.id, ItemsRequest(["d001"], NONE)),
        ):
            with pytest.raises(SnapshotGone, match="has released"):
                await call
        # An alias names it, so that it is still in the memory of Milvus.
        found = await other.search(held.id, ShardQueries(VECTORS), ShardOptions(3))
        store = Store(held.store)
        store.create_alias_record(
            collection, snapshot_pb2.AliasRecord(epoch=2, current="another", who="test")
        )
        (shard,) = await shards.prepare(held.snapshot)
        await shards.release(collection, held.id)
        with pytest.raises(NotReady):
            await held.client.search(held.name, VECTORS, 3)
        # Whoever answers from it all the same has it loaded again.
        again = await other.search(held.id, ShardQueries(VECTORS), ShardOptions(3))
        assert again == found


async def test_a_snapshot_is_prepared_once_for_all_callers(held: Held) -> None:
    await held.export()
    async with held.hosting() as shards:
        given = await asyncio.gather(*(shards.prepare(held.snapshot) for _ in range(4)))
        assert len({id(shard) for (shard,) in given}) == 1


async def test_concurrent_queries_share_calls(
    there: tuple[MilvusShard, str],
) -> None:
    shard, snapshot_id = there
    options = ShardOptions(9, exact=True)
    alone = [await shard.search(snapshot_id, ShardQueries(one[None]), options) for one in VECTORS]
    kinds = (options, options._replace(k=5), options._replace(filter=f.Equals("kind", "a")))
    asked = [(place, kind) for place in range(3) for kind in kinds] * 8
    answers = await asyncio.gather(
        *(shard.search(snapshot_id, ShardQueries(VECTORS[[place]]), kind) for place, kind in asked)
    )
    for (place, kind), (hits,) in zip(asked, answers, strict=True):
        if kind.filter is None:
            assert list(hits.ids) == list(alone[place][0].ids[: kind.k])
        assert hits.plan is None or kind.filter is not None


async def test_a_cancelled_caller_does_not_affect_others(there: tuple[MilvusShard, str]) -> None:
    shard, snapshot_id = there
    options = ShardOptions(9, exact=True)
    calls = [shard.search(snapshot_id, ShardQueries(VECTORS), options) for _ in range(12)]
    for call in calls[::2]:
        call.cancel()
    answers = await asyncio.gather(*calls[1::2])
    assert all(len(one) == len(VECTORS) for one in answers)


async def test_expired_items_are_not_returned(there: tuple[MilvusShard, str]) -> None:
    shard, snapshot_id = there
    (hits,) = await shard.search(snapshot_id, ShardQueries(VECTORS[:1]), ShardOptions(500))
    assert len(hits.ids) == DOCUMENTS - 1 and "d005" not in hits.ids and "d006" in hits.ids
    fetched = await shard.fetch(snapshot_id, ItemsRequest(["d005", "d006"], ALL))
    assert [item.id for item in fetched.items] == ["d006"]
    assert fetched.items[0].expires is not None
    page = await shard.scan(snapshot_id, ScanRequest("d003", 3, None, NONE))
    assert [item.id for item in page.items] == ["d004", "d006", "d007"]
    assert (await shard.count(snapshot_id, CountRequest(None, []))).count == DOCUMENTS - 1


async def test_a_passed_deadline_raises(there: tuple[MilvusShard, str]) -> None:
    shard, snapshot_id = there
    past = asyncio.get_running_loop().time() - 1
    for call in (
        shard.search(snapshot_id, ShardQueries(VECTORS), ShardOptions(3), past),
        shard.fetch(snapshot_id, ItemsRequest(["d001"], NONE), past),
        shard.count(snapshot_id, CountRequest(None, []), past),
        shard.scan(snapshot_id, ScanRequest("", 3, None, NONE), past),
    ):
        with pytest.raises(DeadlineExceeded):
            await call


async def test_without_a_change_log_watermarks_are_unsupported(
    there: tuple[MilvusShard, str],
) -> None:
    shard, snapshot_id = there
    least = Watermark("0" * 32)
    for call in (
        shard.search(snapshot_id, ShardQueries(VECTORS), ShardOptions(3, min_watermark=least)),
        shard.fetch(snapshot_id, ItemsRequest(["d001"], NONE, min_watermark=least)),
    ):
        with pytest.raises(Unsupported) as refused:
            await call
        assert refused.value.field == "min_watermark"


async def test_more_rows_than_a_reply_holds_are_read_in_pages(
    there: tuple[MilvusShard, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, snapshot_id = there
    ids = [f"d{number:03d}" for number in range(DOCUMENTS)]
    whole = await shard.fetch(snapshot_id, ItemsRequest(ids, ALL))
    for module in ("reader", "stored_items"):
        monkeypatch.setattr(f"retrieval.milvus.{module}.MAX_ROWS", 7)
    same(whole.items, (await shard.fetch(snapshot_id, ItemsRequest(ids, ALL))).items)
    same(whole.items, (await shard.scan(snapshot_id, ScanRequest("", 1_000, None, ALL))).items)


def same(items: object, others: object) -> None:
    assert isinstance(items, list) and isinstance(others, list)
    assert len(items) == len(others) == DOCUMENTS - 1
    for one, other in zip(items, others, strict=True):
        assert isinstance(one, Item) and isinstance(other, Item)
        assert dataclasses.replace(one, vector=None) == dataclasses.replace(other, vector=None)
        np.testing.assert_array_equal(one.vector, other.vector)

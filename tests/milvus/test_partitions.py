"""Partitioned snapshots: equal answers, and changes that move rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from nearline import filters as f
from nearline.contract import Filter, Item, PayloadField
from nearline.errors import AlreadyExists, InvalidRequest, Unsupported
from nearline.store.snapshot import Store, partition_of
from retrieval.changelog.records import Change, ChangeEntry, ChangeKind
from retrieval.protocols.shard import CountRequest, ScanRequest, ShardOptions, ShardQueries
from tests.milvus.test_provider import VECTORS, Held, holding

pytestmark = pytest.mark.milvus
FILTERS: Sequence[Filter] = (
    f.Equals("kind", "a"),
    f.In("kind", ("b", "c", "absent")),
    f.All(f.Equals("kind", "b"), f.Range("year", gte=2001)),
    f.Any(f.Equals("kind", "b"), f.Equals("year", 2002)),
    f.Not(f.Equals("kind", "a")),
    f.Equals("kind", "nowhere"),
)


async def _export(held: Held, partition_by: str, *, again: bool = False) -> None:
    from index_builder.indexes.milvus_writer import export

    await export(
        Store(held.store),
        held.snapshot.collection,
        held.id,
        held.client,
        index="FLAT",
        partition_by=partition_by,
        overwrite=again,
    )


async def _answers(held: Held, filter: Filter) -> tuple[list[list[str]], int, list[Item]]:
    async with held.hosting() as shards:
        (shard,) = await shards.prepare(held.snapshot)
        found = await shard.search(held.id, ShardQueries(VECTORS), ShardOptions(20, filter=filter))
        count = await shard.count(held.id, CountRequest(filter, ()))
        payload = frozenset({PayloadField.ATTRIBUTES, PayloadField.TEXT})
        page = await shard.scan(held.id, ScanRequest("", 100, filter, payload))
        return [list(hits.ids) for hits in found], count.count, list(page.items)


async def test_a_partitioned_collection_gives_the_same_answers(
    lite_uri: str, tmp_path: Path
) -> None:
    async with holding(lite_uri, tmp_path) as held:
        await _export(held, "")
        whole = [await _answers(held, one) for one in FILTERS]
        with pytest.raises(AlreadyExists, match="partitioned by 'kind'"):
            await _export(held, "kind")
        await _export(held, "kind", again=True)
        assert [await _answers(held, one) for one in FILTERS] == whole
        assert [count for _, count, _ in whole].count(0) == 1, "some documents match each filter"


async def test_a_filter_by_value_searches_only_its_partition(lite_uri: str, tmp_path: Path) -> None:
    async with holding(lite_uri, tmp_path) as held:
        await _export(held, "kind")
        async with held.hosting() as shards:
            (shard,) = await shards.prepare(held.snapshot)
            matching = shard.reader.matching
            assert 'partition in ["a"]' in matching(FILTERS[0])
            assert 'partition in ["absent", "b", "c"]' in matching(FILTERS[1])
            assert 'partition in ["b"]' in matching(FILTERS[2])
            assert all("partition" not in matching(one) for one in FILTERS[3:5])
            # A live change may bring a list, which lies in no partition of its values.
            shard.reader.context.single_valued -= {"kind"}
            assert all("partition" not in matching(one) for one in FILTERS)


async def test_a_changed_attribute_moves_a_document_to_another_partition(
    lite_uri: str, tmp_path: Path
) -> None:
    from retrieval.milvus.document_writer import DocumentWriter

    async with holding(lite_uri, tmp_path) as held:
        await _export(held, "kind")
        async with held.hosting() as shards:
            (shard,) = await shards.prepare(held.snapshot)
            (held_now,) = shards._snapshots.values()
            merger = held_now.result().merger
            before = f.Equals("kind", "a")
            page = await shard.scan(held.id, ScanRequest("", 100, before, frozenset()))
            moved = page.items[0].id
            change = Change(
                document_id=moved, kind=ChangeKind.ATTRIBUTES, attributes={"kind": "moved"}
            )
            entry = ChangeEntry(partition_of(moved), 1, 0, change)
            now = datetime.now(UTC)
            writes = DocumentWriter(
                held.client, held.name, merger, words=True, check_lease=lambda: None
            )
            await writes.write(merger.merge([entry], now), 0, now)
            shard.reader.context.seen = 0
            after = await shard.scan(
                held.id, ScanRequest("", 100, f.Equals("kind", "moved"), frozenset())
            )
            assert [item.id for item in after.items] == [moved]
            left = await shard.scan(held.id, ScanRequest("", 100, before, frozenset()))
            assert [item.id for item in left.items] == [item.id for item in page.items[1:]]
            found = await shard.search(
                held.id,
                ShardQueries(np.ones((1, 4), np.float32)),
                ShardOptions(5, filter=f.Equals("kind", "moved")),
            )
            assert list(found[0].ids) == [moved]


async def test_unsuitable_attributes_are_rejected(lite_uri: str, tmp_path: Path) -> None:
    async with holding(lite_uri, tmp_path) as held:
        for name in ("year", "tags", "absent"):
            with pytest.raises(InvalidRequest, match=f"{name}.*document has one text.*kind"):
                await _export(held, name)


async def test_a_standalone_server_that_loses_rows_is_rejected(
    standalone_uri: str, tmp_path: Path
) -> None:
    async with holding(standalone_uri, tmp_path) as held:
        with pytest.raises(Unsupported, match=r"2\.4 or newer is needed"):
            await _export(held, "kind")

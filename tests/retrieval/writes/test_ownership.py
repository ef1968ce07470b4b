"""A tenant writes its own items, and none of somebody else."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nearline import contract as c
from nearline.access.caller import Caller
from nearline.access.readers import Ownership
from retrieval.embedders.endpoints import Embedders
from retrieval.protocols.watermark import Watermark
from retrieval.rollout.collections import ServedCollections
from retrieval.search.collection import ServedCollection
from retrieval.writes.writer import Writer
from tests.redis_server import give_shared_redis, needs_redis
from tests.retrieval.changelog.log_writes import change_logs
from tests.retrieval.fakes import WordEmbedder
from tests.retrieval.live.followed_collection import DIM, Followed
from tests.retrieval.writable_collection import ids_of_shard, written
from tests.retrieval.writes.test_writer import (
    ABSENT,
    APPLIED,
    DELETED,
    REJECTED,
    REPLACED,
    item,
    outcomes,
)

__all__ = ["give_shared_redis"]  # A fixture.


async def test_an_owner_writes_its_own_items_and_no_others() -> None:
    here = written(owner=Ownership("tags", Caller("shop", ("staff",))))
    here.put(
        item("mine", tags=["role:staff", "tenant:shop"]),
        item("public", tags=["tenant:shop", "public"]),
        item("other", tags=["tenant:other"]),
        item("nobody"),
    )
    ids = ["mine", "public", "other", "nobody"]
    for reply in (
        await here.writer.upsert_items([item(one) for one in ids]),
        await here.writer.upsert_items(
            [c.Item(id=one, attributes={"kind": "x"}) for one in ids], only_attributes=True
        ),
        await here.writer.delete_items(ids),
    ):
        assert outcomes(reply)[1:] == [REJECTED] * 3
        assert {one.reason for one in reply.results[1:]} == {"PERMISSION_DENIED"}
        assert outcomes(reply)[0] in (REPLACED, DELETED)


async def test_an_owner_waits_for_the_changes_of_others_and_for_every_shard() -> None:
    here = written(owner=Ownership("tags", Caller("shop")))
    (late,) = ids_of_shard(0, 2, 1)
    (there,) = ids_of_shard(1, 2, 1)
    reply = await here.writer.upsert_items([item(late), item(there)])
    assert outcomes(reply) == [APPLIED, APPLIED]
    changes = await here.changes()
    assert {tuple(one.attributes["tags"]) for one in changes.values()} == {("tenant:shop",)}  # type: ignore[arg-type]
    # What the log has, and the shard does not yet, may be an item of somebody else.
    here.shards[0].held = Watermark(here.log.log_id)
    for reply in (
        await here.writer.upsert_items([item(late), item(there)]),
        await here.writer.delete_items([late, there]),
    ):
        assert outcomes(reply)[0] is REJECTED and reply.results[0].reason == "NOT_READY"
        assert outcomes(reply)[1] in (REPLACED, DELETED)


async def test_among_single_values_the_readers_of_a_tenants_item_are_one_value() -> None:
    here = written(owner=Ownership("kind", Caller("shop")))
    reply = await here.writer.upsert_items([item("mine")])
    assert outcomes(reply) == [APPLIED]
    (change,) = (await here.changes()).values()
    assert change.attributes["kind"] == "tenant:shop"


@pytest.mark.service
@needs_redis
async def test_an_item_that_has_expired_is_absent_for_its_owner_and_for_all_others(
    tmp_path: Path, shared_redis: str
) -> None:
    async with change_logs(tmp_path, shared_redis) as logs:
        here = Followed(tmp_path, named=False, logs=logs.reader)
        await here.load()
        collections = ServedCollections()
        collections.serve(ServedCollection(here.snapshot, here.shards))
        embedders = Embedders({"": WordEmbedder(DIM)})

        def writer(tenant: str) -> Writer:
            owner = Ownership("tags", Caller(tenant)) if tenant else None
            return Writer(collections, embedders, logs.log, owner=lambda: owner)

        mine, other, operator = map(writer, ("shop", "other", ""))
        gone = replace(item("a"), expires=datetime(2020, 1, 1, tzinfo=UTC))
        tried = [
            await mine.upsert_items([gone]),
            await mine.upsert_items([gone]),
            await mine.delete_items(["a"]),
            await operator.upsert_items([gone], if_versions={"a": 0}),
            await mine.upsert_items([item("a")]),
            await other.upsert_items([item("a")]),
            await mine.upsert_items([gone]),
            await other.upsert_items([item("a")]),
            await mine.delete_items(["a"]),
        ]
        await here.close()
    assert [outcomes(reply)[0] for reply in tried] == [
        *(APPLIED, APPLIED, ABSENT, APPLIED, APPLIED),
        *(REJECTED, REPLACED, APPLIED, REJECTED),
    ]

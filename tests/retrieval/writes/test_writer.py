"""Writes of items: validation, log entries and replies."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeVar

import numpy as np
import pytest

from nearline import contract as c
from nearline.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    NotReady,
    Overloaded,
    SnapshotMismatch,
)
from nearline.store.snapshot import partition_of, shard_of
from retrieval.changelog.records import ChangeKind
from retrieval.protocols.watermark import Watermark, decode_watermark
from tests.retrieval.fakes import SilentShard, word_vector
from tests.retrieval.small_snapshots import FINGERPRINT
from tests.retrieval.writable_collection import (
    DIM,
    Written,
    ids_of_partition,
    ids_of_shard,
    written,
)

_T = TypeVar("_T")
APPLIED, REPLACED = c.WriteOutcome.APPLIED, c.WriteOutcome.REPLACED
DELETED, ABSENT = c.WriteOutcome.DELETED, c.WriteOutcome.ABSENT
REJECTED = c.WriteOutcome.REJECTED


def item(document_id: str, text: str = "red cloud", **attributes: c.AttributeValue) -> c.Item:
    return c.Item(id=document_id, text=text, attributes=attributes)


def outcomes(reply: c.WriteReply) -> list[c.WriteOutcome]:
    return [one.outcome for one in reply.results]


async def test_an_item_is_cut_embedded_and_acknowledged_once_it_is_in_the_log() -> None:
    here = written(max_tokens=10)
    text = "Red clouds pass over the hill. Blue boats wait in the harbour."
    expires = datetime(2030, 1, 2, tzinfo=UTC)
    given = c.Item(
        id="a",
        title="Sky",
        text=text,
        attributes={"kind": "x", "price": 3, "new": {"deep": [1, 2]}, "empty": None},  # type: ignore[dict-item]
        expires=expires,
    )
    reply = await here.writer.upsert_items([given])
    assert reply.results == [c.WriteResult(id="a", outcome=APPLIED, version=1)]
    change = (await here.changes())["a"]
    assert (change.kind, change.title, change.text) == (ChangeKind.UPSERT, "Sky", text)
    assert change.attributes == {"kind": "x", "price": 3.0, "new.deep": [1, 2]}
    assert isinstance(change.attributes["price"], float)
    assert change.expires == expires
    cut = [text[start:end] for start, end in change.bounds.tolist()]
    assert cut == ["Red clouds pass over the hill.", "Blue boats wait in the harbour."]
    (vectors,) = change.vectors.values()
    assert list(change.vectors) == [FINGERPRINT]
    assert np.array_equal(vectors, [word_vector(f"Sky {one}", DIM) for one in cut])
    assert here.embedder.asked == [
        ([f"Sky {one}" for one in cut], c.TextRole.DOCUMENT, c.Lane.INTERACTIVE, FINGERPRINT)
    ]
    mark = decode_watermark(reply.watermark)
    assert mark is not None
    assert mark == Watermark(here.log.log_id).advanced({partition_of("a"): 1})


async def test_results_keep_their_order_and_a_bad_item_stops_no_other() -> None:
    here = written()
    here.put(item("there"))
    reply = await here.writer.upsert_items(
        [
            item("long" * 200),
            item("new"),
            item("half\ud800"),
            item("there", "blue"),
            item("poisoned", "a poison text"),
            item("blank", " "),
            c.Item(id="titled", title="Only"),
            c.Item(id="vector", text="x", vector=np.ones(DIM, np.float32)),
        ]
    )
    assert outcomes(reply) == [
        *(REJECTED, APPLIED, REJECTED, REPLACED, REJECTED, REJECTED, APPLIED, REJECTED)
    ]
    reasons = [one.message for one in reply.results if one.outcome is REJECTED]
    for reason, text in zip(
        reasons,
        (
            "has 800 bytes, 512",
            "half a surrogate",
            "embedder rejects the text: poison",
            "text and title are empty",
            f"embeds texts with model {FINGERPRINT}; remove the vector",
        ),
        strict=True,
    ):
        assert text in reason
    assert {one.reason for one in reply.results} == {"", "INVALID_REQUEST"}
    assert sorted(await here.changes()) == ["new", "there", "titled"]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("year", "last", "'year' is 'last', which is not of the declared kind int"),
        ("year", 1.5, "declared kind int"),
        ("seen", "yesterday", "declared kind time"),
        ("year", [2000, 2001], "'year' is a list, but has single values in collection 'default'"),
        ("any", 1 << 64, "more than 64 bits"),
        ("any", float("inf"), "not finite"),
    ],
)
@pytest.mark.parametrize("only_attributes", [False, True])
async def test_an_attribute_of_another_kind_is_rejected_with_the_remedy(
    name: str, value: c.AttributeValue, text: str, only_attributes: bool
) -> None:
    here = written()
    here.put(item("a"))
    given = c.Item(id="a", text="" if only_attributes else "x", attributes={name: value})
    reply = await here.writer.upsert_items([given], only_attributes=only_attributes)
    (result,) = reply.results
    assert (result.outcome, result.reason) == (REJECTED, "INVALID_REQUEST")
    assert text in result.message
    assert reply.watermark == b"" and here.log.appends == 0


async def test_convertible_values_are_converted() -> None:
    here = written()
    attributes: c.Attributes = {
        "year": "1999",
        "price": 2,
        "seen": "2020-02-03",
        "tags": "one",
        "unknown": ["x"],
    }
    await here.writer.upsert_items([c.Item(id="a", text="x", attributes=attributes)])
    assert (await here.changes())["a"].attributes == {
        "year": 1999,
        "price": 2.0,
        "seen": datetime(2020, 2, 3, tzinfo=UTC),
        "tags": "one",
        "unknown": ["x"],
    }


async def test_only_attributes_sets_and_removes_without_embedding() -> None:
    here = written()
    here.put(item("a", kind="x", year=1))
    update: c.Attributes = {"kind": "y", "year": None, "price": None, "deep": {"er": True}}  # type: ignore[dict-item]
    reply = await here.writer.upsert_items(
        [c.Item(id="a", attributes=update), c.Item(id="b", attributes={"kind": "z"})],
        only_attributes=True,
    )
    assert outcomes(reply) == [REPLACED, ABSENT]
    assert here.embedder.asked == []
    change = (await here.changes())["a"]
    assert change.kind is ChangeKind.ATTRIBUTES and list(await here.changes()) == ["a"]
    assert change.attributes == {"kind": "y", "year": None, "price": None, "deep.er": True}
    refused = await here.writer.upsert_items(
        [item("a", "text", kind="x"), c.Item(id="b")], only_attributes=True
    )
    assert outcomes(refused) == [REJECTED, REJECTED]
    assert "the item has a text; remove that" in refused.results[0].message
    assert "no attribute to set" in refused.results[1].message


async def test_user_vectors_are_validated_and_normalized() -> None:
    here = written(own_vectors=True)
    vector = np.array([3, 4, 0, 0], np.float32)
    reply = await here.writer.upsert_items(
        [
            c.Item(id="good", vector=vector),
            c.Item(id="none", text="x"),
            c.Item(id="short", vector=np.ones(3, np.float32)),
            c.Item(id="zero", vector=np.zeros(DIM, np.float32)),
            c.Item(id="nan", vector=np.array([np.nan] * DIM, np.float32)),
        ]
    )
    assert outcomes(reply) == [APPLIED, *[REJECTED] * 4]
    for result, text in zip(
        reply.results[1:],
        ("send a vector of 4", "has 3 numbers", "no direction", "NaN"),
        strict=True,
    ):
        assert text in result.message
    change = (await here.changes())["good"]
    assert np.allclose(change.vectors[""], [[0.6, 0.8, 0, 0]])
    assert change.bounds.tolist() == [[0, 0]]
    assert here.embedder.asked == []


async def test_versions_come_from_the_snapshot_until_the_log_has_its_own() -> None:
    here = written()
    here.put(item("base"), item("moved"))

    async def upsert(*ids: str, **versions: int) -> list[tuple[c.WriteOutcome, int]]:
        reply = await here.writer.upsert_items([item(one) for one in ids], if_versions=versions)
        return [(one.outcome, one.version) for one in reply.results]

    assert await upsert("base", "new", base=0, new=0) == [(REPLACED, 1), (APPLIED, 1)]
    assert await upsert("base", "new", base=0, new=1) == [(REJECTED, 1), (REPLACED, 2)]
    conflict = await here.writer.upsert_items([item("base")], if_versions={"base": 7})
    assert conflict.results[0].reason == "CONFLICT" and "version 1" in conflict.results[0].message
    deleted = await here.writer.delete_items(["base", "moved", "never"], if_versions={"base": 1})
    assert outcomes(deleted) == [DELETED, DELETED, ABSENT]
    assert await upsert("base", base=0) == [(APPLIED, 3)]
    assert outcomes(await here.writer.delete_items(["moved"])) == [ABSENT]


async def test_an_import_counts_more_than_changes_that_the_snapshot_has() -> None:
    (one,) = ids_of_partition(5, 1)
    mark = Watermark("f" * 32).advanced({5: 2})
    here = written(watermark=mark)
    for text in ("first", "second"):
        await here.writer.upsert_items([item(one, text)])
    here.put(item(one))
    # The shard shows the log's own; held back to before it, the import alone.
    here.shards[shard_of(one, 2)].held = Watermark(mark.log_id)
    reply = await here.writer.upsert_items([item(one, "third")], if_versions={one: 0})
    assert outcomes(reply) == [REPLACED]


@pytest.mark.parametrize(
    ("items", "versions", "key", "field", "text"),
    [
        ([], {}, "", "items", "0 entries; 1..1,024"),
        ([item(str(n)) for n in range(1_025)], {}, "", "items", "1,025 entries"),
        ([item("a"), item("b"), item("a")], {}, "", "items", "'a' twice"),
        ([item("a")], {"b": 1}, "", "if_versions", "'b', which is not in items"),
        ([item("a")], {"a": -1}, "", "if_versions", "-1 for 'a'"),
        ([item("a")], {}, "ä" * 65, "idempotency_key", "130 bytes; 0..128"),
    ],
)
async def test_an_invalid_request_is_rejected_as_a_whole(
    items: Sequence[c.Item], versions: dict[str, int], key: str, field: str, text: str
) -> None:
    here = written()
    with pytest.raises(InvalidRequest) as caught:
        await here.writer.upsert_items(items, if_versions=versions, idempotency_key=key)
    assert caught.value.field == field and text in caught.value.message
    assert here.log.appends == 0


async def test_deletes_are_checked_too() -> None:
    here = written()
    here.put(item("a"))
    reply = await here.writer.delete_items(["a", "", "x" * 513])
    assert outcomes(reply) == [DELETED, REJECTED, REJECTED]
    with pytest.raises(InvalidRequest, match="'a' twice"):
        await here.writer.delete_items(["a", "a"])


async def test_the_same_key_has_its_effect_once() -> None:
    here = written()
    first = await here.writer.upsert_items([item("a")], idempotency_key="k")
    again = await here.writer.upsert_items([item("a")], idempotency_key="k")
    assert again.results == first.results
    assert outcomes(await here.writer.upsert_items([item("a")])) == [REPLACED]
    with pytest.raises(InvalidRequest, match="another request"):
        await here.writer.upsert_items([item("b")], idempotency_key="k")


async def test_an_unavailable_shard_only_blocks_writes_that_need_its_versions() -> None:
    here = written()
    (away,) = ids_of_shard(0, 2, 1)
    (there,) = ids_of_shard(1, 2, 1)
    here.put(item(away), item(there))
    here.shards[0].error = NotReady("away")
    reply = await here.writer.upsert_items([item(away), item(there)])
    assert outcomes(reply) == [APPLIED, REPLACED]
    reply = await here.writer.upsert_items([item(away), item(there)], if_versions={away: 1})
    assert outcomes(reply) == [REJECTED, REPLACED]
    assert reply.results[0].reason == "NOT_READY"
    assert "shard 0 does not answer" in reply.results[0].message
    update = [c.Item(id=one, attributes={"kind": "x"}) for one in (away, there)]
    reply = await here.writer.upsert_items(update, only_attributes=True)
    assert outcomes(reply) == [REJECTED, REPLACED]
    assert outcomes(await here.writer.delete_items([away, there])) == [DELETED, DELETED]
    changes = await here.changes()
    assert {change.kind for change in changes.values()} == {ChangeKind.DELETE}


async def test_a_delete_is_written_without_an_answer_of_the_shard() -> None:
    here = written()
    for shard in here.shards:
        shard.error = NotReady("away")
    assert outcomes(await here.writer.delete_items(["a"])) == [DELETED]
    here.served.shards = (SilentShard(), SilentShard())
    reply = await here.writer.delete_items(["b"], timeout_s=0.3)
    assert outcomes(reply) == [DELETED] and list(await here.changes()) == ["a", "b"]


async def test_a_large_request_goes_to_the_bulk_lane_in_batches() -> None:
    here = written()
    items = [item(f"i{n}", f"text number {n}{' poison' * (n == 7)}") for n in range(65)]
    reply = await here.writer.upsert_items(items)
    assert [n for n, one in enumerate(outcomes(reply)) if one is REJECTED] == [7]
    assert {lane for _, _, lane, _ in here.embedder.asked} == {c.Lane.BULK}
    assert max(len(texts) for texts, *_ in here.embedder.asked) == 4
    changes = await here.changes()
    for n in (0, 6, 8, 64):
        assert np.array_equal(
            changes[f"i{n}"].vectors[FINGERPRINT], [word_vector(f"text number {n}", DIM)]
        )


@pytest.mark.parametrize(
    ("asked", "count", "used"),
    [
        (None, 64, c.Lane.INTERACTIVE),
        (None, 65, c.Lane.BULK),
        (c.Lane.BULK, 1, c.Lane.BULK),
        (c.Lane.INTERACTIVE, 65, c.Lane.INTERACTIVE),
    ],
)
async def test_texts_wait_in_the_lane_of_the_request_or_in_that_of_its_size(
    asked: c.Lane | None, count: int, used: c.Lane
) -> None:
    here = written()
    await here.writer.upsert_items([item(f"i{n}") for n in range(count)], lane=asked)
    assert {lane for _, _, lane, _ in here.embedder.asked} == {used}


async def test_the_bulk_lane_waits_for_an_overloaded_embedder() -> None:
    here = written()
    await here.writer.upsert_items([item("a")])
    items = [item(f"i{n}") for n in range(65)]
    here.embedder.error = Overloaded("full", retry_after_s=0.001)
    running = asyncio.create_task(here.writer.upsert_items(items, timeout_s=30))
    async with asyncio.timeout(10):
        while len(here.embedder.asked) < 10:
            await asyncio.sleep(0)
        here.embedder.error = None
        assert outcomes(await running) == [APPLIED] * 65
    here.embedder.error = Overloaded("full", retry_after_s=30)
    with pytest.raises(Overloaded):
        await here.writer.upsert_items(items, timeout_s=10)


async def test_a_text_too_long_for_the_embedder_is_cut_only_for_embedding() -> None:
    here = written()
    text = "word " * 300
    await here.writer.upsert_items([item("a", text)])
    ((texts, *_),) = here.embedder.asked
    assert texts == [text[:1000]]
    assert (await here.changes())["a"].text == text


async def test_errors_that_affect_the_whole_request_are_raised() -> None:
    here = written()
    await here.writer.upsert_items([item("z")])
    here.log.away = True
    with pytest.raises(NotReady) as caught:
        await here.writer.upsert_items([item("a")])
    assert caught.value.retry_after_s
    here.log.away = False
    here.log.foreign = True
    with pytest.raises(SnapshotMismatch):
        await here.writer.delete_items(["a"])
    here.log.foreign = False
    here.embedder.error = Overloaded("full", retry_after_s=1.0)
    with pytest.raises(Overloaded):
        await here.writer.upsert_items([item("a")])
    here.embedder.error = None
    with pytest.raises(NotFound):
        await here.writer.upsert_items([item("a")], collection="other")
    with pytest.raises(DeadlineExceeded, match="none was written"):
        await here.writer.upsert_items([item("a")], timeout_s=0.0)
    assert list(await here.changes()) == ["z"]


def test_the_fixture_partitions_items_like_the_router() -> None:
    here: Written = written(shards=3)
    for number, shard in enumerate(here.shards):
        for one in ids_of_shard(number, 3, 5):
            assert partition_of(one) in shard.partitions

"""Write requests and replies survive conversion to protobuf and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from nearline import contract as c, wire
from nearline.errors import InvalidRequest
from nearline.v1 import retrieval_pb2, types_pb2

RESULTS = [
    c.WriteResult(id="a", outcome=c.WriteOutcome.APPLIED, version=1),
    c.WriteResult(id="b", outcome=c.WriteOutcome.REPLACED, version=1 << 60),
    c.WriteResult(id="c", outcome=c.WriteOutcome.DELETED, version=3),
    c.WriteResult(id="d", outcome=c.WriteOutcome.ABSENT),
    c.WriteResult(
        id="e", outcome=c.WriteOutcome.REJECTED, version=4, reason="CONFLICT", message="no"
    ),
]


def test_an_item_survives_with_expiry_and_version() -> None:
    item = c.Item(
        id="a",
        title="t",
        text="x",
        attributes={"n": 1, "gone": None},
        expires=datetime(2030, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
        version=7,
    )
    assert wire.item_from_proto(wire.item_to_proto(item)) == item


def test_an_expiry_is_converted_to_utc() -> None:
    utc = datetime(2030, 1, 2, tzinfo=UTC)
    for given in (utc.replace(tzinfo=None), utc.astimezone(timezone(timedelta(hours=5)))):
        assert (
            wire.item_from_proto(wire.item_to_proto(c.Item(id="a", expires=given))).expires == utc
        )


def test_a_request_survives() -> None:
    items = [c.Item(id="a", text="x"), c.Item(id="b", vector=np.array([1, np.nan], np.float32))]
    request = wire.upsert_request(
        items, "shop", if_versions={"a": 0}, idempotency_key="k", only_attributes=True
    )
    assert (request.collection, request.idempotency_key, request.only_attributes) == (
        *("shop", "k"),
        True,
    )
    assert dict(request.if_versions) == {"a": 0}
    first, second = wire.items_of(request)
    assert first == items[0]
    # The service rejects this item alone.
    assert second.vector is not None and np.isnan(second.vector[1])
    deletes = wire.delete_request(["a"], "shop", if_versions={"a": 9}, idempotency_key="k")
    assert (list(deletes.ids), dict(deletes.if_versions)) == (["a"], {"a": 9})


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (retrieval_pb2.Item(vector=types_pb2.Vectors(data=b"abc", dim=1)), "items[0].vector"),
        (retrieval_pb2.Item(vector=types_pb2.Vectors(data=b"\0" * 8, dim=1)), "items[0].vector"),
    ],
)
def test_a_malformed_vector_is_named(message: retrieval_pb2.Item, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        wire.items_of(retrieval_pb2.UpsertItemsRequest(items=[message]))
    assert caught.value.field == field


def test_a_time_outside_the_years_1_to_9999_is_refused() -> None:
    item = retrieval_pb2.Item(id="a")
    item.expire_time.seconds = 1 << 60
    with pytest.raises(InvalidRequest, match="years 1 to 9999") as caught:
        wire.item_from_proto(item)
    assert caught.value.field == "item.expire_time"
    value = types_pb2.Value()
    value.time_value.seconds = 1 << 60
    with pytest.raises(InvalidRequest, match="years 1 to 9999"):
        wire.value_from_proto(value)


def test_values_that_no_message_can_hold_are_refused() -> None:
    for versions in ({"a": -1}, {"a": 1 << 64}):
        with pytest.raises(InvalidRequest, match=r"use the value of Item\.version"):
            wire.delete_request(["a"], "shop", if_versions=versions)
    with pytest.raises(InvalidRequest, match="item 'a' has a text with half a surrogate"):
        wire.upsert_request([c.Item(id="a", text="\ud800")], "shop")
    with pytest.raises(InvalidRequest, match="an id or key has half"):
        wire.delete_request(["a", "\ud800"], "shop")
    with pytest.raises(InvalidRequest, match="more than 64 bits"):
        wire.upsert_request([c.Item(id="a", attributes={"n": 1 << 63})], "shop")


def test_replies_survive() -> None:
    reply = c.WriteReply(results=RESULTS, watermark=b"w")
    assert wire.write_reply(wire.upsert_response(reply)) == reply
    assert wire.write_reply(wire.delete_response(reply)) == reply


def test_replies_to_streams_survive() -> None:
    kinds = c.WriteOutcome
    upserts = {kinds.APPLIED: 1, kinds.REPLACED: 2, kinds.ABSENT: 3, kinds.REJECTED: 4}
    upserts |= {kinds.UNCHANGED: 5, kinds.SUPERSEDED: 6}
    bulk = c.BulkWriteReply(watermark=b"w", counts=upserts, rejections=RESULTS[-1:])
    assert wire.upsert_stream_reply(wire.upsert_stream_response(bulk)) == bulk
    deletes = {kinds.DELETED: 1, kinds.ABSENT: 2, kinds.REJECTED: 0}
    bulk = c.BulkWriteReply(watermark=b"w", counts=deletes, rejections=[])
    assert wire.delete_stream_reply(wire.delete_stream_response(bulk)) == bulk

"""Write requests and replies survive conversion to protobuf and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from nearline import contract as c, wire
from nearline.errors import InvalidRequest
from nearline.v1 import retrieval_pb2, types_pb2


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

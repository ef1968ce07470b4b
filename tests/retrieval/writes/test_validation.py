"""Items are checked before anything is written, whatever is to be done with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from nearline import contract as c
from nearline.errors import InvalidRequest
from retrieval.changelog.records import Change, ChangeKind
from retrieval.writes.validation import (
    attributes_change,
    check_times,
    delete_change,
    upsert_change,
    valid_ids,
)
from tests.retrieval.writable_collection import written

SERVED = written().served
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("item_id", "problem"),
    [
        ("a", ""),
        ("é" * 256, ""),
        ("", "the id is empty"),
        ("é" * 256 + "a", "the id has 513 bytes, 512 are allowed"),
        ("\ud800", "not valid Unicode"),
    ],
)
def test_an_id_is_checked_by_every_kind_of_change(item_id: str, problem: str) -> None:
    attributes: dict[str, c.AttributeValue] = {"year": 1}
    changes: dict[ChangeKind, Callable[[], Change]] = {
        ChangeKind.UPSERT: lambda: upsert_change(c.Item(id=item_id, text="red"), SERVED),
        ChangeKind.ATTRIBUTES: lambda: attributes_change(
            c.Item(id=item_id, attributes=attributes), SERVED
        ),
        ChangeKind.DELETE: lambda: delete_change(item_id),
    }
    for kind, change in changes.items():
        if problem:
            with pytest.raises(InvalidRequest, match=problem):
                change()
        else:
            assert (change().document_id, change().kind) == (item_id, kind)
    assert valid_ids(["b", item_id]) == (["b"] if problem else ["b", item_id])


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        (c.Item(id="a", title="t", attributes={"year": 1}), "the item has a title; remove"),
        (c.Item(id="a", text="t", attributes={"year": 1}), "the item has a text; remove"),
        (
            c.Item(id="a", vector=np.zeros(4, np.float32), expires=EPOCH),
            "the item has a vector and an expiry; remove",
        ),
        (c.Item(id="a"), "no attribute to set or to remove"),
        (c.Item(id="a", attributes={"year": "soon"}), "year"),
        (c.Item(id="a", attributes={"year": [1, 2]}), "'year' is a list, but has single values"),
    ],
)
def test_a_change_of_attributes_has_nothing_else(item: c.Item, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        attributes_change(item, SERVED)


def test_attributes_without_a_value_are_removed() -> None:
    item = c.Item(id="a", attributes={"year": None, "kind": "cup"})
    assert attributes_change(item, SERVED).attributes == {"year": None, "kind": "cup"}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("make", [upsert_change, attributes_change])
def test_a_number_that_is_not_finite_is_refused_by_its_place(
    make: Callable[[c.Item, Any], Change], number: float
) -> None:
    for attributes, path in (
        ({"price": number}, "attributes.price"),
        ({"price": [1.0, number]}, "attributes.price[1]"),
        ({"size": {"wide": number}}, "attributes.size.wide"),
    ):
        text = "x" if make is upsert_change else ""
        item = c.Item(id="a", text=text, attributes=attributes)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest) as caught:
            make(item, SERVED)
        assert caught.value.field == path
        assert caught.value.message.startswith(f"{path} is {number}, which is not finite")


@pytest.mark.parametrize(
    ("time", "is_allowed"),
    [
        (EPOCH - timedelta(0, 0, 1), False),
        (EPOCH, True),
        (EPOCH.astimezone(timezone(timedelta(hours=-9))), True),
        # Clocks may differ by a day.
        (datetime.now(UTC) + timedelta(hours=23), True),
        (datetime.now(UTC) + timedelta(hours=48), False),
    ],
)
def test_an_item_was_submitted_between_1970_and_now(time: datetime, is_allowed: bool) -> None:
    if is_allowed:
        check_times(["a", "b"], {"b": time}, whole=True)
        return
    with pytest.raises(InvalidRequest, match="between 1970 and now") as caught:
        check_times(["a", "b"], {"b": time}, whole=True)
    assert caught.value.field == "as_of"

"""Items that are changed live have a bounded size."""

from __future__ import annotations

from typing import Any

import pytest

from nearline.contract import MAX_ATTRIBUTES_BYTES, MAX_TEXT_BYTES, MAX_TITLE_BYTES, Item
from nearline.errors import InvalidRequest
from nearline.items.sizes import check_sizes


@pytest.mark.parametrize(
    "largest",
    [
        {"text": "a" * MAX_TEXT_BYTES},
        {"text": "é" * (MAX_TEXT_BYTES // 2)},
        {"text": "\ud800" * (MAX_TEXT_BYTES // 3)},  # Refused later, for what it is.
        {"title": "a" * MAX_TITLE_BYTES},
        {"attributes": {"a": "b" * (MAX_ATTRIBUTES_BYTES - 1)}},
        {"attributes": {"a": [1] * (MAX_ATTRIBUTES_BYTES // 8 - 1)}},
        {"attributes": {"a": [""] * (MAX_ATTRIBUTES_BYTES - 2)}},
    ],
)
def test_an_item_may_be_as_large_as_the_limits(largest: dict[str, Any]) -> None:
    check_sizes(Item(id="a", **largest))


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("text", "a" * (MAX_TEXT_BYTES + 1), "text has 1048577 bytes, and at most 1048576 are"),
        ("text", "é" * (MAX_TEXT_BYTES // 2) + "a", "text has 1048577 bytes"),
        ("title", "a" * (MAX_TITLE_BYTES + 1), "title has 16385 bytes, and at most 16384 are"),
        ("attributes", {"a": "b" * MAX_ATTRIBUTES_BYTES}, "more than 1048576 bytes"),
        ("attributes", {"é" * MAX_ATTRIBUTES_BYTES: 1}, "more than 1048576 bytes"),
        ("attributes", {"a": {"b": [1] * (MAX_ATTRIBUTES_BYTES // 8)}}, "more than 1048576 bytes"),
    ],
)
def test_a_larger_one_is_refused_with_the_field_and_the_remedy(
    field: str, value: object, found: str
) -> None:
    with pytest.raises(InvalidRequest, match=found) as caught:
        check_sizes(Item(id="a", **{field: value}))  # type: ignore[arg-type]
    assert caught.value.field == field
    assert any(word in caught.value.message for word in ("; split it", "; shorten", "; remove"))
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("value", ["", [], {}, [""]])
def test_empty_values_count(value: object) -> None:
    many: Any = [value] * (MAX_ATTRIBUTES_BYTES + 1)
    with pytest.raises(InvalidRequest, match="more than 1048576 bytes"):
        check_sizes(Item(id="a", attributes={"x": many}))


def test_deeply_nested_attributes_are_measured() -> None:
    value: object = "b"
    for _ in range(5_000):
        value = {"a": value}
    check_sizes(Item(id="a", attributes={"a": value}))  # type: ignore[dict-item]

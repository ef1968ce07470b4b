"""Histories survive encoding, take few bytes, and take new events in order."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, strategies as st

from nearline.errors import NotReady
from retrieval.users.codec import (
    NO_HISTORY,
    EncodedHistory,
    event_count,
    insert_events,
    pack,
    unpack,
)


class Row(NamedTuple):
    second: int
    item: int
    kind: int
    weight: float | None


NUMBERS = st.integers(0, 300) | st.integers(0, 2**34 - 1)
WEIGHTS = st.none() | st.floats(2.0**-99, 2.0**99, width=32)
ROWS = st.builds(Row, st.integers(0, 5) | st.integers(0, 2**32 - 1), NUMBERS, NUMBERS, WEIGHTS)


def newest_first(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row.second, reverse=True)


def history_of(rows: list[Row]) -> EncodedHistory:
    return EncodedHistory(
        [row.item for row in rows],
        [row.second for row in rows],
        [row.kind for row in rows],
        [row.weight for row in rows],
    )


def rows_of(history: EncodedHistory) -> list[Row]:
    columns = (history.seconds, history.items, history.kinds, history.weights)
    return [Row(*row) for row in zip(*columns, strict=True)]


@given(st.lists(ROWS, min_size=1, max_size=200), st.binary(min_size=4, max_size=4))
def test_a_history_survives_a_round_trip(rows: list[Row], dictionary_id: bytes) -> None:
    rows = newest_first(rows)
    blob = pack(history_of(rows), dictionary_id)
    found = unpack(blob)
    assert rows_of(found.history) == rows
    assert found.dictionary_id == dictionary_id
    assert event_count(blob) == len(rows)


@given(st.lists(ROWS, max_size=20), st.lists(ROWS, min_size=1, max_size=5), st.integers(1, 12))
def test_new_events_are_inserted_in_order_of_time(
    old: list[Row], new: list[Row], most: int
) -> None:
    old = newest_first(old)
    found = insert_events(history_of(old), history_of(new), most)
    assert rows_of(found) == newest_first([*new, *old])[:most]


def test_an_ordinary_event_takes_four_bytes() -> None:
    # A common item (below 128), minutes apart (two bytes), two kinds without a weight.
    rows = [Row(1_800_000_000 - 600 * n, n % 128, n % 2, None) for n in range(100)]
    # Of the message: version 2, dictionary 6, newest 6, a column 2 or 3.
    assert len(pack(history_of(rows), b"abcd")) == 14 + (2 + 3 + 2) + 4 * 100 - 2
    alike = [row._replace(kind=3) for row in rows]
    assert len(pack(history_of(alike), b"abcd")) == 14 + (2 + 3 + 2) + 3 * 100 - 1


def test_a_history_of_another_layout_is_rejected() -> None:
    blob = pack(history_of([Row(1, 1, 1, None)]), b"abcd")
    for other, layout in ((b"\x08\x09" + blob[2:], 9), (b"\xff" + blob, 0)):
        with pytest.raises(NotReady, match=f"has layout {layout}, this Nearline reads 2"):
            unpack(other)


def test_no_history_has_no_events() -> None:
    assert event_count(b"") == len(NO_HISTORY.items) == 0

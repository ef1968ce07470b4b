"""Hot lists as bytes, and their names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.hot.packing import Packed, name_of, pack, unpack
from retrieval.hot.records import HotItem, HotList
from tests.retrieval.hot.making import KEY, mark

ZONES = st.sampled_from([UTC, timezone(timedelta(hours=2))])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=ZONES)
)
NAMES = st.sampled_from(["time", "Time", ""]) | st.text(max_size=3)
ITEMS = st.builds(
    HotItem,
    st.text(max_size=5),
    st.floats(allow_nan=False),
    st.none() | st.text(max_size=5),
    st.none() | st.text(max_size=5),
    st.none() | st.dictionaries(NAMES, SCALARS | st.lists(SCALARS, max_size=3), max_size=3),
)
LISTS = st.builds(
    HotList,
    st.lists(ITEMS, max_size=3).map(tuple),
    st.integers(0, 1 << 60),
    st.floats(0, 1e6),
    st.sampled_from([b"", mark(7).encode()]),
)


@given(LISTS)
def test_a_list_comes_back_as_it_was(hot: HotList) -> None:
    assert unpack(pack(Packed(hot, hot.computed_us))) == Packed(hot, hot.computed_us)


def test_that_there_is_none_comes_back() -> None:
    assert unpack(pack(Packed(None, 17))) == Packed(None, 17)


@given(st.binary(max_size=30))
def test_what_is_not_ours_is_nothing(data: bytes) -> None:
    # A lone number in brackets is how a missing list looks.
    found = unpack(data)
    assert found is None or found.hot is None


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_what_was_cut_short_is_nothing(cut: int) -> None:
    hot = HotList(
        (HotItem("a", 1.0, None, None, {"time": datetime(2026, 1, 1, tzinfo=UTC)}),), 1, 1
    )
    assert unpack(pack(Packed(hot, 1))[:-cut]) is None


@pytest.mark.parametrize(
    "data", [b'[1,0.5,"ff",[]]', b'[1,0.5,"",[["a"]]]', b'[1,0.5,"",7]', b"[]", b'{"a":1}']
)
def test_a_value_of_another_form_is_nothing(data: bytes) -> None:
    assert unpack(data) is None


def test_what_cannot_be_kept_is_refused() -> None:
    hot = HotList((HotItem("a", 1.0, None, None, {"x": b"bytes"}),), 1, 1.0)
    with pytest.raises(TypeError, match="cannot hold a bytes"):
        pack(Packed(hot, 1))


def test_a_name_tells_all_parts_of_a_key_apart() -> None:
    others = [KEY._replace(**{field: "x"}) for field in KEY._fields]
    moved = KEY._replace(payload="title,item:42", of="")
    assert len({name_of(key) for key in (KEY, moved, *others)}) == len(others) + 2
    assert name_of(KEY) == name_of(KEY._replace())

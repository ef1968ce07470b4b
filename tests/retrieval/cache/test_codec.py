"""The encoding and the Redis keys of cached lists."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given, strategies as st

from retrieval.cache.cached_list import CachedList
from retrieval.cache.redis_cache import StoredList, pack, redis_key, unpack
from tests.retrieval.cache.sample_lists import KEY, mark

ITEMS = st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=20)), max_size=3)


@st.composite
def lists(draw: st.DrawFn) -> CachedList:
    items = draw(ITEMS)
    return CachedList(
        tuple(one for one, _ in items),
        tuple(message for _, message in items),
        draw(st.integers(0, 1 << 60)),
        draw(st.floats(0, 1e6)),
        draw(st.sampled_from([b"", mark(7).encode()])),
        draw(st.integers(0, 1 << 60)),
    )


@given(lists())
def test_a_list_survives_a_round_trip(hot: CachedList) -> None:
    assert unpack(pack(StoredList(hot, hot.computed_us))) == StoredList(hot, hot.computed_us)


def test_a_missing_item_survives_a_round_trip() -> None:
    assert unpack(pack(StoredList(None, 17))) == StoredList(None, 17)


@given(st.binary(max_size=30))
def test_foreign_data_counts_as_missing(data: bytes) -> None:
    assert unpack(data) is None


@given(lists(), st.data())
def test_damaged_data_counts_as_missing(hot: CachedList, data: st.DataObject) -> None:
    packed = pack(StoredList(hot, 1))
    at = data.draw(st.integers(0, len(packed) - 1))
    changed = packed[at] ^ data.draw(st.integers(1, 255))
    assert unpack(packed[:at] + bytes([changed]) + packed[at + 1 :]) is None
    assert unpack(packed[:at]) is None


@pytest.mark.parametrize(
    "head", [b'[1,0.5,"ff",0,[],[]]', b'[1,0.5,"",0,["a"],[]]', b'[1,0.5,"",7]', b"[]", b'{"a":1}']
)
def test_data_of_another_format_counts_as_missing(head: bytes) -> None:
    content = head + b"\n"
    assert unpack(zlib.crc32(content).to_bytes(4) + content) is None


def test_redis_keys_differ_in_every_part_of_a_list_key() -> None:
    others = [KEY._replace(**{field: "x"}) for field in KEY._fields]
    moved = KEY._replace(payload="title,item:42", of="")
    assert len({redis_key(key) for key in (KEY, moved, *others)}) == len(others) + 2
    assert redis_key(KEY) == redis_key(KEY._replace())

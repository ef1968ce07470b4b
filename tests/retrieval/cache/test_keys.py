"""Each input of a cached list is part of its key."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import cast

import numpy as np
import pytest
from hypothesis import given, strategies as st

from nearline import contract as c
from nearline.filters import Equals
from retrieval.cache.cached_list import ListKey
from retrieval.cache.redis_cache import redis_key
from retrieval.search.collection import ServedCollection
from retrieval.search.search_cache import _key

OPTIONS: dict[str, object] = {
    "k": 11,
    "mode": c.SearchMode.LEXICAL,
    "level": c.HitLevel.CHUNK,
    "payload": frozenset({c.PayloadField.TITLE}),
    "ef_search": 17,
    "nprobe": 3,
    "exact": True,
    "explain": True,
    "filter": Equals("kind", "manual"),
    "min_score": 0.5,
    "grouping": c.Grouping("kind"),
    "diversity": 0.25,
    "dense_weight": 0.75,
}
# Requirements on an answer, which do not change its content.
NO_INPUTS: dict[str, object] = {
    "require_full_coverage": True,
    "snapshot_id": "20260101T000000Z-000000",
    "min_watermark": b"x",
    "unit": "u",
}
PLAIN = c.SearchOptions()


class _Served:
    def __init__(self, name: str, snapshot_id: str) -> None:
        self.name, self.snapshot_id = name, snapshot_id


SERVED = cast(ServedCollection, _Served("shop", "s1"))
parts = st.text(max_size=6)
keys = st.builds(ListKey, *[parts] * len(ListKey._fields))


@given(key=keys, other=keys, field=st.sampled_from(ListKey._fields))
def test_each_field_alone_changes_the_key_in_redis(
    key: ListKey, other: ListKey, field: str
) -> None:
    changed = key._replace(**{field: getattr(other, field)})
    assert (redis_key(changed) == redis_key(key)) is (changed == key)


def test_each_option_alone_changes_the_key_of_a_search() -> None:
    query = c.Query(text="kettle")
    variants = [PLAIN, *(replace(PLAIN, **{one: value}) for one, value in OPTIONS.items())]  # type: ignore[arg-type]
    assert len({_key(SERVED, query, one) for one in variants}) == len(variants)
    assert {one.name for one in fields(c.SearchOptions)} == {*OPTIONS, *NO_INPUTS}


@pytest.mark.parametrize("name", NO_INPUTS)
def test_a_requirement_on_an_answer_does_not(name: str) -> None:
    query, other = c.Query(text="kettle"), replace(PLAIN, **{name: NO_INPUTS[name]})  # type: ignore[arg-type]
    assert _key(SERVED, query, PLAIN) == _key(SERVED, query, other)


def test_collection_snapshot_and_query_change_the_key_of_a_search() -> None:
    vector = np.ones(4, np.float32)
    queries = [
        c.Query(text="kettle"),
        c.Query(text="Kettle"),
        c.Query(vector=vector),
        c.Query(vector=2 * vector),
        c.Query(vector=vector.astype(np.float64)),
    ]
    served = [
        SERVED,
        *(cast(ServedCollection, _Served(*one)) for one in (("shop", "s2"), ("b", "s1"))),
    ]
    made = {_key(one, query, PLAIN) for one in served for query in queries}
    assert len(made) == len(served) * len(queries)

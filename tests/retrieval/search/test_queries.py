"""Limits of search options: the last value that is allowed, and the first that is not."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from nearline import contract as c
from nearline.errors import InvalidRequest, SnapshotGone
from retrieval.search.collection import ServedCollection
from retrieval.search.queries import (
    MAX_EF_SEARCH,
    MAX_NPROBE,
    align_to_metric,
    check_cost,
    check_options,
    query_text,
)


def _collection(*, unit_length: bool = True) -> ServedCollection:
    served = SimpleNamespace(
        name="default", snapshot_id="s1", has_words=True, unit_length=unit_length
    )
    return cast(ServedCollection, served)


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("ef_search", [1, MAX_EF_SEARCH], [0, MAX_EF_SEARCH + 1]),
        ("nprobe", [1, MAX_NPROBE], [0, MAX_NPROBE + 1]),
        ("diversity", [0.0, 1.0], [-0.001, 1.001, math.nan]),
        ("dense_weight", [0.0, 1.0], [-0.001, 1.001, math.nan]),
        ("min_score", [-1e30, 0.0], [math.inf, -math.inf, math.nan]),
    ],
)
def test_an_option_is_allowed_up_to_its_limits(
    name: str, allowed: list[Any], refused: list[Any]
) -> None:
    for value in (None, *allowed):
        check_options(_collection(), c.SearchOptions(**{name: value}))
    for value in refused:
        with pytest.raises(InvalidRequest) as raised:
            check_options(_collection(), c.SearchOptions(**{name: value}))
        assert raised.value.field == f"options.{name}"


def test_options_may_name_the_loaded_snapshot_alone() -> None:
    check_options(_collection(), c.SearchOptions(snapshot_id="s1"))
    with pytest.raises(SnapshotGone):
        check_options(_collection(), c.SearchOptions(snapshot_id="s2"))


@pytest.mark.parametrize(
    ("queries", "k", "size"),
    [
        (1, c.MAX_K, None),
        (c.MAX_HITS // 128, 128, None),
        (c.MAX_FILLED_GROUPS // 64, 64, 2),
    ],
)
def test_a_search_may_ask_for_as_much_as_is_allowed_and_no_more(
    queries: int, k: int, size: int | None
) -> None:
    grouping = None if size is None else c.Grouping("brand", size)
    check_cost(queries, c.SearchOptions(k=k, grouping=grouping))
    more = c.SearchOptions(k=k + 1, grouping=grouping)
    with pytest.raises(InvalidRequest) as raised:
        check_cost(queries, more)
    assert raised.value.field == "options.k"


def test_a_text_may_have_as_many_characters_as_is_allowed() -> None:
    text = "é" * c.MAX_QUERY_CHARACTERS
    assert query_text(c.Query(text=text), "query") == text
    with pytest.raises(InvalidRequest):
        query_text(c.Query(text=text + "é"), "query")


def test_vectors_get_unit_length_for_cosine_only() -> None:
    matrix = np.array([[3, 4], [0.6, 0.8], [0, 1e-20]], np.float32)
    assert align_to_metric(_collection(unit_length=False), matrix) is matrix
    unit = align_to_metric(_collection(), matrix)
    expected = np.array([[0.6, 0.8], [0.6, 0.8], [0, 1]], np.float32)
    assert np.abs(unit - expected).max() < 1e-6
    np.testing.assert_array_equal(unit[1], matrix[1])
    assert align_to_metric(_collection(), matrix[1:2]) is not None
    with pytest.raises(InvalidRequest, match="query 1 is all zeros"):
        align_to_metric(_collection(), np.array([[1, 0], [0, 0]], np.float32))

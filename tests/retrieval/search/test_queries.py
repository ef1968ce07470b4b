"""Limits of search options: the last value that is allowed, and the first that is not."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from nearline import contract as c
from nearline.errors import InvalidRequest
from retrieval.embedders.endpoints import Embedders
from retrieval.search.collection import ServedCollection
from retrieval.search.queries import (
    PreparedQueries,
    align_to_metric,
    check_cost,
    check_options,
    prepare_queries,
)
from retrieval.search.request_context import RequestContext


def _collection(*, unit_length: bool = True) -> ServedCollection:
    served = SimpleNamespace(
        name="default",
        snapshot_id="s1",
        has_words=True,
        words_by_default=True,
        has_model=False,
        unit_length=unit_length,
        dim=2,
        fingerprint="m@1",
    )
    return cast(ServedCollection, served)


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("ef_search", [1, 4_096], [0, 4_097]),
        ("nprobe", [1, 65_536], [0, 65_537]),
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


async def _prepare(*queries: c.Query, mode: c.SearchMode | None = None) -> PreparedQueries:
    names = [f"queries[{number}]" for number in range(len(queries))]
    return await prepare_queries(
        _collection(),
        Embedders({}),
        queries,
        names,
        c.SearchOptions(mode=mode),
        RequestContext(None),
    )


@pytest.mark.parametrize(
    "vector",
    [
        np.array([3, 4], np.float32),
        np.array([3, 4], np.float64),
        np.array([[3, 4]], np.float32),
        np.array([[3, 4]], np.float16),
        np.array([3, 0, 4, 0], np.float32)[::2],
    ],
)
async def test_a_query_vector_may_be_a_row_of_any_float_type(vector: NDArray[Any]) -> None:
    (batch,) = (await _prepare(c.Query(vector=vector))).batches
    assert (batch.mode, list(batch.numbers)) == (c.SearchMode.DENSE, [0])
    assert batch.queries.vectors.dtype == np.float32 and batch.queries.vectors.flags.c_contiguous
    assert np.abs(batch.queries.vectors - [[0.6, 0.8]]).max() < 1e-6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ((2, 2), r"has 2 rows; send one"),
        ((3,), r"has dim 3, collection 'default' has dim 2, made by model m@1"),
        ((1, 1), r"has dim 1, collection 'default' has dim 2"),
        ((0,), r"have shape \(0,\)"),
        ((1, 1, 2), r"have shape \(1, 1, 2\)"),
    ],
)
async def test_a_query_vector_of_another_shape_is_refused(
    shape: tuple[int, ...], problem: str, dtype: type[Any]
) -> None:
    fine = c.Query(vector=np.ones(2, np.float32))
    with pytest.raises(InvalidRequest, match=problem) as raised:
        await _prepare(fine, c.Query(vector=np.ones(shape, dtype)))
    assert raised.value.field == "queries[1].vector"

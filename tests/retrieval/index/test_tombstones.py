"""Searches around hidden rows, over an index whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.index.filtering.planner import FilteredSearch, Matches
from retrieval.index.tombstones import search_alive
from retrieval.index.vectors.vector_index import IndexInfo, Neighbours, SearchParams

ROWS, K = 100, 5
QUERY = np.ones((1, 2), np.float32)


class RowOrderIndex:
    """Row n is the n-th best for every query; an approximate search reaches the first rows only."""

    def __init__(self, *knobs: str, reach: int = ROWS) -> None:
        self._knobs = frozenset(knobs)
        self._reach = reach
        self.searches: list[SearchParams] = []

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        params: SearchParams = SearchParams(),  # noqa: B008  a tuple cannot change
        allow: NDArray[np.uint8] | None = None,
        rows: NDArray[np.int64] | None = None,
    ) -> Neighbours:
        self.searches.append(params)
        found = np.arange(ROWS if params.exact else self._reach)
        if allow is not None:
            found = found[np.unpackbits(allow, bitorder="little")[found] == 1]
        ids = np.full((len(queries), k), -1, np.int64)
        ids[:, : len(found[:k])] = found[:k]
        scores = np.where(ids < 0, -np.inf, -ids).astype(np.float32)
        return Neighbours(ids, scores, full=bool((ids >= 0).all()))

    def reconstruct(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.ones((len(rows), 2), np.float32)

    def describe(self) -> IndexInfo:
        return IndexInfo(kind="rows", dim=2, rows=ROWS, knobs=self._knobs, ef_search=64, nprobe=8)

    def close(self) -> None:
        """Has no file."""


def alive_without(*hidden: int) -> Matches:
    alive = np.ones(ROWS, np.bool_)
    alive[list(hidden)] = False
    bitmap = np.packbits(alive, bitorder="little")
    return Matches(alive, alive, bitmap, int(alive.sum()), np.flatnonzero(alive))


def searched(index: RowOrderIndex, alive: Matches, params: SearchParams, k: int = K) -> Neighbours:
    return search_alive(index, FilteredSearch(index, ROWS), QUERY, k, params, alive)


@pytest.mark.parametrize(
    ("hidden", "expected"),
    [
        ([], [0, 1, 2, 3, 4]),
        ([99], [0, 1, 2, 3, 4]),
        ([0], [1, 2, 3, 4, 5]),
        ([1, 4], [0, 2, 3, 5, 6]),
        # More than the spare rows: the query is searched again, under a filter.
        (list(range(40)), [40, 41, 42, 43, 44]),
        # Most rows are hidden.
        (list(range(60)), [60, 61, 62, 63, 64]),
    ],
)
def test_the_best_alive_rows_are_found_in_order(hidden: list[int], expected: list[int]) -> None:
    found = searched(RowOrderIndex("exact", "nprobe"), alive_without(*hidden), SearchParams())
    assert found.ids.tolist() == [expected]
    assert found.scores.tolist() == [[-float(row) for row in expected]]


def test_a_result_with_a_row_in_every_place_is_full() -> None:
    index = RowOrderIndex("exact", "nprobe")
    for hidden in ([], [0], [1, 4], list(range(40))):
        assert searched(index, alive_without(*hidden), SearchParams()).full


@pytest.mark.parametrize(
    ("reach", "expected"), [(4, [0, 2, 3, -1, -1]), (5, [0, 2, 3, 4, -1]), (6, [0, 2, 3, 4, 5])]
)
def test_a_result_with_an_empty_place_is_not_full(reach: int, expected: list[int]) -> None:
    found = searched(RowOrderIndex(reach=reach), alive_without(1), SearchParams())
    assert found.ids.tolist() == [expected]
    assert np.isneginf(found.scores[0, found.ids[0] < 0]).all()
    assert found.full == (-1 not in expected)


def test_a_query_that_finds_too_few_rows_is_compared_with_all_alive_ones() -> None:
    found = searched(RowOrderIndex("exact", "nprobe", reach=4), alive_without(1), SearchParams())
    assert found.ids.tolist() == [[0, 2, 3, 4, 5]] and found.full


def test_if_all_alive_rows_are_requested_the_other_places_are_empty() -> None:
    hidden = list(range(97))
    found = searched(RowOrderIndex("exact", "nprobe"), alive_without(*hidden), SearchParams())
    assert found.ids.tolist() == [[97, 98, 99, -1, -1]] and not found.full


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        # The widths grow with rows / alive rows to the power of 0.75: 2^0.75 = 1.68.
        (SearchParams(), SearchParams(ef_search=108, nprobe=13)),
        (SearchParams(ef_search=100, nprobe=10), SearchParams(ef_search=168, nprobe=17)),
    ],
)
def test_the_search_is_as_wide_as_under_a_filter_that_keeps_as_many_rows(
    params: SearchParams, expected: SearchParams
) -> None:
    index = RowOrderIndex("exact", "ef_search", "nprobe")
    searched(index, alive_without(*range(1, ROWS, 2)), params)
    assert index.searches[0] == expected
    plain = RowOrderIndex("exact")
    searched(plain, alive_without(*range(1, ROWS, 2)), SearchParams())
    assert plain.searches[0] == SearchParams()

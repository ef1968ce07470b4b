"""`find_top_units` and `best_per_run` agree with brute force."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from retrieval.index.top_units import TopRows, best_per_run, find_top_units


@given(
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=40), min_size=1, max_size=3),
    st.integers(1, 8),
    st.integers(1, 10),
)
def test_the_best_row_of_each_of_the_best_units_is_found(
    orders: list[list[int]], k: int, first_limit: int
) -> None:
    rows = max(map(len, orders))
    units = [np.array(order + [9] * (rows - len(order))) for order in orders]
    limits: list[int] = []

    def find(queries: NDArray[np.int64], limit: int) -> Sequence[TopRows]:
        limits.append(limit)
        return [
            TopRows(
                np.arange(min(limit, len(orders[query]))) + 100 * query,
                -np.arange(min(limit, len(orders[query])), dtype=np.float32),
            )
            for query in queries.tolist()
        ]

    def unit_of(found: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.array([units[row // 100][row % 100] for row in found.tolist()], np.int64)

    found = find_top_units(
        find, len(orders), k, first_limit=first_limit, rows=rows, unit_of=unit_of
    )
    for query, one in enumerate(found):
        firsts = list(dict.fromkeys(orders[query]))[:k]
        wanted = [100 * query + orders[query].index(unit) for unit in firsts]
        assert one.rows.tolist() == wanted
    assert limits == sorted(limits) and limits[-1] <= rows


def test_a_search_for_more_units_than_there_are_does_not_read_every_row() -> None:
    limits: list[int] = []

    def find(queries: NDArray[np.int64], limit: int) -> Sequence[TopRows]:
        limits.append(limit)
        return [TopRows(np.arange(limit), -np.arange(limit, dtype=np.float32)) for _ in queries]

    def unit_of(found: NDArray[np.int64]) -> NDArray[np.int64]:
        return found % 2

    (found,) = find_top_units(
        find, 1, 10, first_limit=40, rows=1_000_000, unit_of=unit_of, most_units=lambda: 2
    )
    assert found.rows.tolist() == [0, 1]
    assert limits == [40]


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), max_size=8))
def test_the_best_of_each_run_is_its_first_largest(runs: list[list[int]]) -> None:
    flat = np.array([float(one) for run in runs for one in run], np.float32)
    places, best = best_per_run(flat, np.array([len(run) for run in runs], np.int64))
    start, wanted = 0, []
    for run in runs:
        wanted.append(start + run.index(max(run)))
        start += len(run)
    assert places.tolist() == wanted
    assert best.tolist() == [max(run) for run in runs]

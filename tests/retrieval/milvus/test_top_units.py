"""The best units among rows sorted by score, with ties in any order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, strategies as st

from retrieval.milvus import top_units
from retrieval.milvus.layout import MilvusHit, make_key
from retrieval.milvus.top_units import RankedRow, chunk_of, document_of, find_top_units

ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 3)),
    max_size=60,
    unique_by=lambda row: row[1:],
)


class Rows:
    """Finds rows by score; ties come in random order."""

    def __init__(self, queries: Sequence[Sequence[tuple[int, int, int]]], seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._queries = []
        for rows in queries:
            found = [
                MilvusHit(make_key(f"d{d}", chunk), float(score), {}) for score, d, chunk in rows
            ]
            scores = np.array([-one.score for one in found])
            order = np.lexsort((rng.random(len(found)), scores))
            self._queries.append([found[place] for place in order])
        self.asked: list[tuple[list[int], int]] = []

    async def __call__(self, places: Sequence[int], ask: int) -> list[list[MilvusHit]]:
        self.asked.append((list(places), ask))
        return [self._queries[place][:ask] for place in places]


def model(rows: Sequence[tuple[int, int, int]], k: int, *, documents: bool) -> list[RankedRow]:
    ordered = sorted(RankedRow(-float(score), f"d{d}", chunk, {}) for score, d, chunk in rows)
    if documents:
        ordered = sorted({row.id: row for row in reversed(ordered)}.values())
    return ordered[:k]


@given(
    queries=st.lists(ROWS, min_size=1, max_size=3),
    k=st.integers(1, 12),
    first_ask=st.integers(1, 20),
    documents=st.booleans(),
    seed=st.integers(0, 9),
)
def test_exact_rows_give_the_best_units_ties_included(
    queries: list[list[tuple[int, int, int]]], k: int, first_ask: int, documents: bool, seed: int
) -> None:
    find = Rows(queries, seed)
    unit_of = document_of if documents else chunk_of
    found = asyncio.run(
        find_top_units(find, len(queries), k, first_ask=first_ask, unit_of=unit_of, exact=True)
    )
    assert found == [model(rows, k, documents=documents) for rows in queries]


def test_a_graph_search_with_enough_units_runs_once() -> None:
    find = Rows([[(1, number, 0) for number in range(50)]], 0)
    (best,) = asyncio.run(
        find_top_units(find, 1, 10, first_ask=10, unit_of=document_of, exact=False)
    )
    assert find.asked == [([0], 10)]
    assert len(best) == 10 and [row.id for row in best] == sorted(row.id for row in best)


def test_only_queries_that_lack_units_are_searched_again() -> None:
    many = [(9, 0, chunk) for chunk in range(30)] + [(1, number, 0) for number in range(1, 4)]
    find = Rows([[(9 - number, number, 0) for number in range(6)], many], 0)
    first, second = asyncio.run(
        find_top_units(find, 2, 3, first_ask=3, unit_of=document_of, exact=False)
    )
    assert find.asked == [([0, 1], 3), ([1], 12), ([1], 48)]
    assert [row.id for row in first] == ["d0", "d1", "d2"]
    assert [(row.id, row.chunk) for row in second] == [("d0", 0), ("d1", 0), ("d2", 0)]


def test_requests_are_limited_to_the_maximum_of_milvus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_units, "MAX_ROWS", 20)
    find = Rows([[(1, 0, chunk) for chunk in range(50)]], 0)
    (best,) = asyncio.run(find_top_units(find, 1, 5, first_ask=5, unit_of=document_of, exact=True))
    assert [ask for _, ask in find.asked] == [9, 20]
    assert [row.id for row in best] == ["d0"]

"""Searches over a fake reader: the best units, ties in any order, and graphs that find too few."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from nearline.contract import Boost, Grouping, HitLevel
from nearline.errors import Unsupported
from nearline.filters import Equals
from retrieval.milvus import searcher
from retrieval.milvus.layout import MilvusHit, make_key
from retrieval.milvus.reader import MilvusReader
from retrieval.milvus.searcher import (
    MilvusSearcher,
    RankedRow,
    VectorIndexInfo,
    find_top_units,
)
from retrieval.protocols.shard import ShardOptions, ShardQueries

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

    async def __call__(
        self, places: Sequence[int], ask: int, expression: str
    ) -> list[list[MilvusHit]]:
        self.asked.append((list(places), ask))
        return [self._queries[place][:ask] for place in places]


def best(
    find: Rows,
    k: int,
    first_ask: int,
    queries: int = 1,
    *,
    level: HitLevel = HitLevel.DOCUMENT,
    exact: bool = True,
) -> list[list[RankedRow]]:
    return asyncio.run(
        find_top_units(find, range(queries), k, "", first_ask=first_ask, level=level, exact=exact)
    )


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
    level = HitLevel.DOCUMENT if documents else HitLevel.CHUNK
    found = best(find, k, first_ask, len(queries), level=level)
    assert found == [model(rows, k, documents=documents) for rows in queries]


def test_a_graph_search_with_enough_units_runs_once() -> None:
    find = Rows([[(1, number, 0) for number in range(50)]], 0)
    (found,) = best(find, 10, 10, exact=False)
    assert find.asked == [([0], 10)]
    assert len(found) == 10 and [row.id for row in found] == sorted(row.id for row in found)


def test_only_queries_that_lack_units_are_searched_again() -> None:
    many = [(9, 0, chunk) for chunk in range(30)] + [(1, number, 0) for number in range(1, 4)]
    find = Rows([[(9 - number, number, 0) for number in range(6)], many], 0)
    first, second = best(find, 3, 3, 2, exact=False)
    assert find.asked == [([0, 1], 3), ([1], 12), ([1], 48)]
    assert [row.id for row in first] == ["d0", "d1", "d2"]
    assert [(row.id, row.chunk) for row in second] == [("d0", 0), ("d1", 0), ("d2", 0)]


def test_requests_are_limited_to_the_maximum_of_milvus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searcher, "MAX_ROWS", 20)
    find = Rows([[(1, 0, chunk) for chunk in range(50)]], 0)
    (found,) = best(find, 5, 5)
    assert [ask for _, ask in find.asked] == [9, 20]
    assert [row.id for row in found] == ["d0"]


VECTORS = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)


class Graph:
    """A reader of 40 rows; a search narrower than `enough` misses every other one of the best."""

    def __init__(self, enough: int) -> None:
        self.kinds = {"kind": "string"}
        self._enough = enough
        self.widths: list[int | None] = []

    def matching(self, filter: object) -> str:
        return "" if filter is None else "chunk == 0"

    async def count(self, expression: str, deadline: float | None) -> int:
        return len(VECTORS)

    async def search(
        self,
        vectors: NDArray[np.float32],
        k: int,
        expression: str,
        fields: Sequence[str],
        ef: int | None,
        deadline: float | None,
    ) -> list[list[MilvusHit]]:
        self.widths.append(ef)
        step = 1 if ef is None or ef >= self._enough else 2
        found = []
        for scores in vectors @ VECTORS.T:
            order = np.argsort(-scores, kind="stable")[::step][:k]
            found.append(
                [
                    MilvusHit(make_key(f"d{n:02d}", 0), float(scores[n]), {"start": 0, "stop": 1})
                    for n in order
                ]
            )
        return found


@pytest.mark.parametrize(
    ("graph", "k", "filtered", "lite", "flat", "widths"),
    [
        (Graph(0), 10, True, False, False, [16]),
        (Graph(500), 30, True, False, False, [30, 32_768]),
        (Graph(500), 30, False, False, False, [30, 32_768]),
        # All rows match, so that a second search finds no more.
        (Graph(0), 60, True, False, False, [60, 32_768]),
        # Of 400 rows, 40 match.
        (Graph(160), 10, True, True, False, [160]),
        (Graph(0), 10, False, True, False, [16]),
        (Graph(1 << 30), 30, True, False, True, [None]),
    ],
)
async def test_a_graph_that_finds_too_few_is_searched_wider(
    graph: Graph, k: int, filtered: bool, lite: bool, flat: bool, widths: list[int | None]
) -> None:
    info = VectorIndexInfo("v2.3.5", flat, 16, 400, 1, lite)
    over = MilvusSearcher(cast(MilvusReader, graph), info, None)
    options = ShardOptions(k, filter=Equals("kind", "a") if filtered else None)
    query = np.eye(3, dtype=np.float32)[:1]
    (hits,) = await over.search(ShardQueries(query), options, None)
    wanted = np.argsort(-(query @ VECTORS.T)[0], kind="stable")[:k]
    assert list(hits.ids) == [f"d{n:02d}" for n in wanted]
    assert graph.widths == widths


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (ShardOptions(3, grouping=Grouping("kind")), "grouping"),
        (ShardOptions(3, boosts=(Boost(field="kind", any_of=("a",)),)), "boosts"),
        (ShardOptions(3, nprobe=4), "nprobe"),
        (ShardOptions(3, exact=True), "exact"),
    ],
)
async def test_what_milvus_cannot_do_names_the_option_and_the_remedy(
    options: ShardOptions, field: str
) -> None:
    info = VectorIndexInfo("v2.3.5", False, 16, 400, 1)
    over = MilvusSearcher(cast(MilvusReader, Graph(0)), info, None)
    with pytest.raises(Unsupported, match=f"{field}.*unset") as refused:
        await over.search(ShardQueries(VECTORS[:1]), options, None)
    assert refused.value.field == f"options.{field}"

"""Widening and scanning after a graph search returns too few rows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.milvus.layout import MilvusHit, make_key
from retrieval.milvus.reader import MilvusReader
from retrieval.milvus.vector_leg import VectorIndexInfo, VectorLeg

ROWS = 40
VECTORS = np.random.default_rng(1).normal(size=(ROWS, 3)).astype(np.float32)
QUERIES = np.eye(3, dtype=np.float32)[:2]


class ShortGraph:
    """Has ROWS rows; a search that is too narrow misses every other one of the best."""

    def __init__(self, enough: int) -> None:
        self._enough = enough
        self.widths: list[int | None] = []
        self.counted = 0

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
        return [best(vector, ROWS)[::step][:k] for vector in vectors]

    async def count(self, expression: str, deadline: float | None) -> int:
        self.counted += 1
        return ROWS

    async def pages(
        self, expression: str, fields: Sequence[str], deadline: float | None
    ) -> AsyncIterator[list[Mapping[str, Any]]]:
        assert "vector" in fields
        rows: list[Mapping[str, Any]] = [
            {"key": make_key(f"d{n:02d}", 0), "vector": VECTORS[n].tolist()} for n in range(ROWS)
        ]
        yield rows[:15]
        yield rows[15:]


def best(vector: NDArray[np.float32], k: int) -> list[MilvusHit]:
    scores = VECTORS @ vector
    return [
        MilvusHit(make_key(f"d{n:02d}", 0), float(scores[n]), {})
        for n in np.argsort(-scores, kind="stable")[:k]
    ]


async def asked(graph: ShortGraph, ask: int, *, lite: bool = False, flat: bool = False) -> None:
    """Searches and compares the answer with brute force."""
    info = VectorIndexInfo("v2.3.5", flat, 16, 10 * ROWS, 1, lite)
    leg = VectorLeg(cast(MilvusReader, graph), info)
    results = await leg.search(QUERIES, ask, "chunk == 0", ("start",), 16, None)
    for vector, found in zip(QUERIES, results, strict=True):
        wanted = best(vector, ask)
        assert [one.key for one in found] == [one.key for one in wanted]
        np.testing.assert_allclose(
            [one.score for one in found], [one.score for one in wanted], atol=1e-6
        )


async def test_a_full_answer_needs_one_search() -> None:
    graph = ShortGraph(0)
    await asked(graph, 10)
    assert (graph.widths, graph.counted) == ([16], 0)


async def test_all_matching_rows_are_a_full_answer() -> None:
    graph = ShortGraph(0)
    await asked(graph, 100)
    assert (graph.widths, graph.counted) == ([100], 1)


@pytest.mark.parametrize("enough", [500, 10_000_000])
async def test_a_short_answer_is_widened_then_scanned(enough: int) -> None:
    graph = ShortGraph(enough)
    await asked(graph, 30)
    # Four times as wide, and ten times since a tenth of all rows match.
    assert (graph.widths, graph.counted) == ([30, 1_200], 1)


async def test_lite_searches_wider_if_few_rows_match() -> None:
    graph = ShortGraph(160)
    await asked(graph, 10, lite=True)
    assert (graph.widths, graph.counted) == ([160], 1)


async def test_a_flat_index_has_no_width() -> None:
    graph = ShortGraph(10_000_000)
    await asked(graph, 30, flat=True)
    assert (graph.widths, graph.counted) == ([None], 0)

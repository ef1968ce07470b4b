"""Live vectors: bit-exact without graphs, and accurate and complete with graphs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from retrieval.index.vectors.vector_index import SearchParams
from retrieval.live import vectors as live_vectors
from retrieval.live.graphs import build_in_thread
from retrieval.live.vectors import LiveIndex, LiveVectors
from tests.retrieval.live.base_shards import exact_scores


def names_of(rows: NDArray[np.int64]) -> Sequence[str]:
    """Document ids in another order than the rows."""
    return [f"{row * 7919 % 1009:04}" for row in rows.tolist()]


def seal_all(vectors: LiveVectors) -> int:
    """Seals all blocks; returns the number of graphs built."""
    built = 0
    while blocks := vectors.next_to_seal():
        graph = build_in_thread(blocks[0].graph, blocks[-1].vectors, lambda: True)
        assert graph is not None
        vectors.seal(blocks, graph)
        built += 1
    return built


def bitmap(allowed: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.packbits(allowed, bitorder="little")


def expected(
    query: NDArray[np.float32], matrix: NDArray[np.float32], k: int, allowed: NDArray[np.bool_]
) -> tuple[list[int], list[float]]:
    scores = exact_scores(query, matrix)
    names = names_of(np.arange(len(matrix)))
    order = sorted(np.flatnonzero(allowed).tolist(), key=lambda r: (-scores[r], names[r], r))[:k]
    gaps = k - len(order)
    return order + [-1] * gaps, scores[order].tolist() + [-np.inf] * gaps


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 1 << 30),
    rows=st.integers(1, 70),
    k=st.integers(1, 75),
    share=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    sealed=st.booleans(),
    dim=st.sampled_from([1, 3, 8, 12, 33]),
    params=st.sampled_from([SearchParams(), SearchParams(7, 3), SearchParams(exact=True)]),
)
def test_searches_are_exact_while_scans_are_faster(
    seed: int, rows: int, k: int, share: float, sealed: bool, dim: int, params: SearchParams
) -> None:
    rng = np.random.default_rng(seed)
    # Few different vectors, so that many scores are equal.
    matrix = rng.standard_normal((5, dim)).astype(np.float32)[rng.integers(0, 5, rows)]
    vectors = LiveVectors(dim, block_rows=8)
    for part in np.split(matrix, np.sort(rng.integers(0, rows, 5))):
        vectors.add(part)
    if sealed:
        seal_all(vectors)
    allowed = rng.random(rows) < share
    queries = rng.standard_normal((3, dim)).astype(np.float32)
    allow = None if share == 1 else bitmap(allowed)
    found = vectors.view(names_of).search(queries, k, params, allow)
    for at, query in enumerate(queries):
        ids, scores = expected(query, matrix, k, allowed)
        assert found.ids[at].tolist() == ids
        assert found.scores[at].tolist() == scores
    assert found.full == (found.ids[:, -1] >= 0).all()


def test_a_graph_grows_until_it_is_full(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_vectors, "MAX_GRAPH_ROWS", 72)
    matrix = rng.standard_normal((8 * 21 + 3, 5)).astype(np.float32)
    vectors = LiveVectors(5, block_rows=8)
    before: list[tuple[LiveIndex, int]] = []
    for at in range(0, len(matrix), 19):
        vectors.add(matrix[at : at + 19])
        before.append((vectors.view(names_of), vectors.rows))
        seal_all(vectors)
    sizes = [len(stretch.vectors) for stretch in vectors.blocks]
    assert sizes == [72, 72, 24, 3]
    assert [stretch.graph is None for stretch in vectors.blocks] == [False, False, False, True]
    everything = np.arange(len(matrix))[::-1]
    assert np.array_equal(vectors.read(everything), matrix[everything])
    # Views stay what they were.
    for view, rows in before:
        assert view.describe().rows == rows
        assert np.array_equal(view.reconstruct(np.arange(rows)), matrix[:rows])
        assert set(view.search(matrix[:1], 200).ids[0].tolist()) == {-1, *range(rows)}


@pytest.fixture(scope="module")
def large() -> tuple[LiveVectors, NDArray[np.float32]]:
    """Clustered vectors: 8,192 in graphs and 1,000 without."""
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((64, 16)).astype(np.float32)
    matrix = centres[rng.integers(0, 64, 9_192)] + 0.3 * rng.standard_normal((9_192, 16))
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    vectors = LiveVectors(16)
    vectors.add(matrix.astype(np.float32))
    assert seal_all(vectors) == 2
    return vectors, matrix.astype(np.float32)


def recall(
    found: NDArray[np.int64],
    queries: NDArray[np.float32],
    matrix: NDArray[np.float32],
    allowed: Sequence[NDArray[np.bool_]],
) -> float:
    shares = []
    for ids, query, mine in zip(found, queries, allowed, strict=True):
        scores = np.where(mine, matrix @ query, -np.inf)
        best = set(np.argsort(-scores)[: len(ids)].tolist())
        shares.append(len(best & set(ids.tolist())) / len(ids))
    return float(np.mean(shares))


def test_graphs_agree_with_a_scan(
    large: tuple[LiveVectors, NDArray[np.float32]], rng: np.random.Generator
) -> None:
    vectors, matrix = large
    index = vectors.view(names_of)
    queries = matrix[rng.choice(len(matrix), 100)]
    found, width = index.search_planned(queries, 10, SearchParams(), None)
    assert width == 64
    everything = [np.ones(len(matrix), np.bool_)] * len(queries)
    assert recall(found.ids, queries, matrix, everything) > 0.98
    # Scores are those of a scan, to the bit.
    for ids, scores, query in zip(found.ids, found.scores, queries, strict=True):
        assert np.array_equal(exact_scores(query, matrix)[ids], scores)
    exact, width = index.search_planned(queries, 10, SearchParams(exact=True), None)
    assert width == 0
    assert recall(exact.ids, queries, matrix, everything) == 1.0


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.95])
def test_filters_of_any_share_agree_with_a_scan(
    large: tuple[LiveVectors, NDArray[np.float32]], rng: np.random.Generator, share: float
) -> None:
    vectors, matrix = large
    queries = matrix[rng.choice(len(matrix), 50)]
    allowed = rng.random(len(matrix)) < share
    found = vectors.view(names_of).search(queries, 10, allow=bitmap(allowed))
    assert allowed[found.ids].all()
    assert recall(found.ids, queries, matrix, [allowed] * len(queries)) > 0.98


@pytest.mark.parametrize("share", [0.6, 0.8])
def test_a_filter_without_the_nearest_rows_costs_no_recall(
    large: tuple[LiveVectors, NDArray[np.float32]], rng: np.random.Generator, share: float
) -> None:
    vectors, matrix = large
    index = vectors.view(names_of)
    for query in matrix[rng.choice(len(matrix), 20)]:
        near = matrix @ query
        allowed = near < np.quantile(near, share)
        found, width = index.search_planned(query[None], 10, SearchParams(), bitmap(allowed))
        assert width >= 64
        assert recall(found.ids, query[None], matrix, [allowed]) == 1.0


def test_more_rows_than_the_search_width_are_found(
    large: tuple[LiveVectors, NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, matrix = large
    monkeypatch.setattr(live_vectors, "_ROWS_PER_WIDTH", 0)
    found, width = vectors.view(names_of).search_planned(
        matrix[:2], 9_000, SearchParams(), bitmap(np.arange(len(matrix)) < 9_000)
    )
    assert width > 0
    assert [sorted(ids) for ids in found.ids.tolist()] == [[*range(9_000)]] * 2

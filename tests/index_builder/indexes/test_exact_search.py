"""The exact scan equals brute force, and recall counts ties."""

from __future__ import annotations

import numpy as np
import pytest

from index_builder.indexes.exact_search import ExactResults, recall_of, scan


def test_scan_in_blocks_equals_brute_force(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index_builder.indexes.exact_search._BLOCK_NUMBERS", 64)
    vectors = rng.integers(-9, 9, (101, 4)).astype(np.float32)
    queries = rng.integers(-9, 9, (7, 4)).astype(np.float32)
    _, rows, scores, lowest = scan(vectors, queries, 10)
    products = queries @ vectors.T
    assert np.array_equal(scores, -np.sort(-products, axis=1)[:, :10])
    assert np.array_equal(np.take_along_axis(products, rows, axis=1), scores)
    assert np.array_equal(lowest, products.min(axis=1))


def test_recall_counts_results_that_tie_with_exact_results() -> None:
    vectors = np.array([[4], [3], [2], [2], [1]], np.float32)
    exact = ExactResults(
        queries=np.ones((1, 1), np.float32),
        rows=np.array([[0, 1, 2]]),
        scores=np.array([[4, 3, 2]], np.float32),
        lowest=np.array([1], np.float32),
    )

    def recall(*rows: int) -> float:
        found = np.array([rows])
        return recall_of(exact, vectors, found, np.where(found >= 0, -found, 0).astype("f4"))

    assert recall(0, 1, 2) == recall(0, 1, 3) == 1.0  # Rows 2 and 3 tie.
    assert recall(0, 1, 4) == pytest.approx(2 / 3)
    assert recall(0, -1, -1) == pytest.approx(1 / 3)
    assert recall(0, 1, 4, 2) == 1.0  # The index scores row 2 above row 4.

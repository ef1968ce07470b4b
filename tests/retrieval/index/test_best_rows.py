"""The best rows by score: ties by document id, then by row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from retrieval.index.best_rows import rank_rows, top_k_with_ties

NAMES = ["d", "b", "b", "a", "c", "e"]


def names_of(rows: NDArray[np.int64]) -> Sequence[str]:
    return [NAMES[row] for row in rows]


def no_names(rows: NDArray[np.int64]) -> Sequence[str]:
    raise AssertionError("names are read although no scores are equal")


def scored(scores: Sequence[float]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    return np.arange(len(scores)), np.array(scores, np.float32)


@given(
    st.lists(st.integers(0, 3), max_size=len(NAMES)).flatmap(
        lambda scores: st.permutations(list(enumerate(scores)))
    ),
    st.integers(1, 7),
)
def test_rows_are_ranked_by_score_then_document_id_then_row(
    found: list[tuple[int, int]], k: int
) -> None:
    rows = np.array([row for row, _ in found], np.int64)
    scores = np.array([score for _, score in found], np.float32)
    ranked = sorted((-score, NAMES[row], row) for row, score in found)[:k]
    best, best_scores = rank_rows(rows, scores, k, names_of)
    assert best.tolist() == [row for *_, row in ranked]
    assert best_scores.tolist() == [-score for score, *_ in ranked]


@pytest.mark.parametrize(
    ("scores", "k", "best"),
    [([], 1, []), ([0.5], 1, [0]), ([0.1, 0.3, 0.2], 2, [1, 2]), ([0.1, 0.1, 0.2], 1, [2])],
)
def test_names_are_read_only_if_equal_scores_compete(
    scores: list[float], k: int, best: list[int]
) -> None:
    assert rank_rows(*scored(scores), k, no_names)[0].tolist() == best


def test_ties_with_the_last_of_the_best_are_kept() -> None:
    rows, scores = top_k_with_ties(*scored([1.0, 3.0, 2.0, 2.0, 0.0]), 2)
    assert dict(zip(rows.tolist(), scores.tolist(), strict=True)) == {1: 3.0, 2: 2.0, 3: 2.0}

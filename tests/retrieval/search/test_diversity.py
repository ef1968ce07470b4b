"""Maximal marginal relevance, compared with its literal definition."""

from __future__ import annotations

import numpy as np
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from retrieval.search.diversity import (
    MAX_COMPARISONS,
    diverse_depth,
    diverse_order,
    pool_size,
)

vectors = hnp.arrays(np.float32, st.tuples(st.integers(1, 12), st.just(3)),
                     elements=st.integers(-2, 2).map(float))  # fmt: skip


@given(vectors, st.integers(1, 14), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_each_step_selects_the_best_hit_by_the_definition(
    vectors: np.ndarray, k: int, diversity: float
) -> None:
    scores = np.linspace(1.0, 0.2, len(vectors))
    order = diverse_order(scores, vectors, k, diversity)
    assert len(order) == len(set(order)) == min(k, len(vectors))
    norms = np.linalg.norm(vectors, axis=1)

    def cosine(a: int, b: int) -> float:
        product = norms[a] * norms[b]
        return float(vectors[a] @ vectors[b]) / product if product else 0.0

    for step, chosen in enumerate(order):
        before = order[:step]

        def gain(one: int, before: list[int] = before) -> float:
            penalty = max((cosine(one, other) for other in before), default=0.0)
            return float((1 - diversity) * scores[one] - diversity * penalty)

        best = max(gain(one) for one in range(len(vectors)) if one not in before)
        assert gain(chosen) >= best - 1e-5


def test_zero_diversity_keeps_the_order_and_duplicates_are_moved_back() -> None:
    scores = np.array([1.0, 0.99, 0.5])
    vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    assert diverse_order(scores, vectors, 3, 0.0) == [0, 1, 2]
    assert diverse_order(scores, vectors, 3, 0.5) == [0, 2, 1]
    assert diverse_order(np.empty(0), np.empty((0, 2), np.float32), 3, 0.5) == []
    assert pool_size(1) == 50 and pool_size(100) == 400


@given(st.integers(1, 10_000), st.integers(1, 1_024))
def test_the_queries_of_a_request_share_one_budget_of_comparisons(k: int, queries: int) -> None:
    depth = diverse_depth(k, queries)
    assert 1 <= depth <= k
    assert queries * depth * pool_size(depth) <= MAX_COMPARISONS
    # Lists of usual lengths are diverse to their end.
    assert depth == k or k > 1_024 // queries**0.5 - 1


def test_entries_before_the_list_and_refused_ones_count_as_they_should() -> None:
    scores = np.array([1.0, 0.9, 0.5])
    vectors = np.array([[1, 0], [0, 1], [0, 1]], np.float32)
    before = np.array([[3, 0]], np.float32)
    # The first is like what precedes the list; the refused one makes nothing less likely.
    assert diverse_order(scores, vectors, 3, 0.5, before=before) == [1, 0, 2]
    assert diverse_order(scores, vectors, 3, 0.5, before=before, accepts=lambda p: p != 1) == [2, 0]


def test_a_selection_that_is_no_longer_needed_ends_between_steps() -> None:
    steps = iter([False, False, True])
    order = diverse_order(
        np.ones(9), np.ones((9, 2), np.float32), 9, 0.5, stopped=lambda: next(steps)
    )
    assert len(order) == 2

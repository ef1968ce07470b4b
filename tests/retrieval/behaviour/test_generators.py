"""Scores of generators follow their formulas."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from nearline.times import DAY_US
from retrieval.behaviour.blend import (
    DEPTH,
    Blend,
    WeightedGenerator,
    on_common_scale,
)
from retrieval.behaviour.factors import FactorGenerator, ItemFactors, OrderedFactors
from retrieval.behaviour.history import History, Recency
from retrieval.behaviour.item_lists import ItemLists, ListGenerator
from retrieval.behaviour.popularity import BuyAgainGenerator, ItemScores, PopularityGenerator
from retrieval.protocols.scored_rows import ScoredRows, sum_by_row
from tests.retrieval.behaviour.dense_scores import dense, of_all, spread

# 0 goes with 1 and 2, 1 with 0; nothing goes with 2.
LISTS = ItemLists(
    np.array([0, 2, 3, 3]), np.array([1, 2, 0], np.int32), np.array([0.5, 0.25, 2], np.float32)
)


def history(*items: int, days_ago: tuple[float, ...] | None = None) -> History:
    ago = days_ago or tuple(range(len(items)))
    times = (np.array(ago) * -DAY_US).astype(np.int64)
    return History(np.array(items, np.int32), times, np.ones(len(items), np.float32))


def scale(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    return spread(on_common_scale([of_all(scores)])[0], len(scores))


def test_recency_falls_from_one_to_the_floor() -> None:
    times = history(*range(4)).time_us
    assert Recency().factors(times).tolist() == [1, 1, 1, 1]
    expected = 0.2 + 0.8 * np.exp(-np.arange(4) / 2)
    assert Recency(2.0, 0.2).factors(times) == pytest.approx(expected)
    assert Recency(days=3.0).factors(times) == pytest.approx(np.exp(-np.arange(4) / 3))
    assert len(Recency(days=3.0).factors(times[:0])) == 0


def test_lists_add_up_by_recency() -> None:
    generator = ListGenerator(LISTS, Recency(1.0))
    older = np.exp(-1.0)
    assert dense(generator, history(0, 1), 3) == pytest.approx([2 * older, 0.5, 0.25])
    assert dense(generator, history(1, 0), 3) == pytest.approx([2, 0.5 * older, 0.25 * older])
    assert dense(generator, history(2), 3).tolist() == [0, 0, 0]
    assert dense(generator, history(), 3).tolist() == [0, 0, 0]
    assert dense(generator._replace(newest=1), history(0, 1), 3).tolist() == [0, 0.5, 0.25]
    assert [part.tolist() for part in LISTS.of(0)] == [[1, 2], [0.5, 0.25]]


@given(
    lists=st.lists(
        st.dictionaries(st.integers(0, 5), st.floats(0.125, 8, width=32), max_size=6),
        min_size=6,
        max_size=6,
    ),
    asked=st.lists(st.tuples(st.integers(0, 5), st.floats(0.125, 4, width=32)), max_size=8),
)
def test_the_weighted_sum_of_lists_equals_a_matrix_product(
    lists: list[dict[int, float]], asked: list[tuple[int, float]]
) -> None:
    matrix = np.zeros((6, 6))
    for row, one in enumerate(lists):
        for column, score in one.items():
            matrix[row, column] = score
    made = ItemLists(
        np.cumsum([0, *map(len, lists)]),
        np.array([other for one in lists for other in one], np.int32),
        np.array([score for one in lists for score in one.values()], np.float32),
    )
    items = np.array([item for item, _ in asked], np.int32)
    weights = np.array([weight for _, weight in asked], np.float32)
    generator = ListGenerator(made)
    events = History(items, np.zeros(len(items), np.int64), weights)
    assert dense(generator, events, 6) == pytest.approx(weights @ matrix[items], rel=1e-5)


def test_a_user_folded_in_solves_the_equations_of_als(rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((30, 4)).astype(np.float32)
    factors = ItemFactors(vectors, vectors.T.astype(np.float64) @ vectors, 5.0, 2.0)
    items, confidence = np.array([3, 8, 20], np.int32), np.array([1, 0.5, 3], np.float32)
    # All items at once: c = 1 and p = 0 where the user has nothing.
    c, p = np.ones(30), np.zeros(30)
    c[items], p[items] = 2.0 * confidence, 1
    left = (vectors.T * c) @ vectors + 5.0 * np.eye(4)
    expected = np.linalg.solve(left, vectors.T @ (c * p))
    user = factors.fold_in(items, confidence)
    assert user == pytest.approx(expected, rel=1e-4)
    # Twice the same item is once with twice the confidence.
    generator = FactorGenerator(factors)
    twice = dense(generator, history(3, 8, 3), 30)
    once = factors.fold_in(np.array([3, 8], np.int32), np.array([2, 1], np.float32))
    assert twice == pytest.approx(vectors @ once, rel=1e-5)
    assert not dense(generator, history(), 30).any()


def test_buy_again_counts_visits_and_orders_the_rest_by_popularity() -> None:
    of_items = np.array([0, 10, 5, 1], np.float32)
    generator = BuyAgainGenerator(ItemScores(of_items), Recency(1.0), popularity=0.5)
    # Items 0 and 3 in one visit, 3 in the visit before.
    bought = history(3, 0, 3, days_ago=(0, 0, 7))
    assert dense(generator, bought, 4) == pytest.approx([1, 0.5, 0.25, 0.05 + 1 + np.exp(-1)])
    assert dense(generator, history(), 4) == pytest.approx([0, 0.5, 0.25, 0.05])
    assert of_items.tolist() == [0, 10, 5, 1]


def test_a_common_scale_has_mean_2_and_deviation_1_over_the_best() -> None:
    scores = np.zeros(1_000, np.float32)
    scores[:400] = np.arange(400, 0, -1)
    scaled = scale(scores)
    assert set(np.flatnonzero(scaled)) <= set(range(DEPTH))
    best = scores[:DEPTH]
    assert scaled[:DEPTH] == pytest.approx(2 + (best - best.mean()) / best.std(), abs=1e-5)
    spike = np.ones(200, np.float32)
    spike[7] = 1e6
    assert scale(spike)[7] == 8
    assert not scale(np.array([0, 3, 0], np.float32)).any()


@pytest.mark.parametrize("unit", [1e-12, 1e-9, 1.0, 1e12])
def test_scores_of_any_magnitude_keep_their_order_on_the_common_scale(unit: float) -> None:
    scaled = scale(np.array([3, 1, 0, 2], np.float32) * np.float32(unit))
    assert np.argsort(-scaled).tolist() == [0, 3, 1, 2]
    assert scaled[1] > 0


def test_equal_scores_are_equal_on_the_common_scale() -> None:
    assert scale(np.array([4, 0, 4], np.float32)).tolist() == [2, 0, 2]


def test_a_blend_adds_scales_and_leaves_out_what_the_user_had() -> None:
    first, second = np.array([5, 4, 3, 0], np.float32), np.array([0, 1, 2, 9], np.float32)
    parts = [
        WeightedGenerator(PopularityGenerator(ItemScores(first))),
        WeightedGenerator(PopularityGenerator(ItemScores(second)), 2.0),
    ]
    whole = dense(Blend(parts, repeats=True), history(0), 4)
    assert whole == pytest.approx(scale(first) + 2 * scale(second))
    without = dense(Blend(parts), history(0), 4)
    assert without[0] == 0
    # What the user had is no part of the scale either.
    assert without[1] > whole[1]


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=40),
    st.integers(1, 12),
    st.sets(st.integers(0, 39)),
)
def test_the_best_of_popular_items_are_those_of_a_sort(
    values: list[int], most: int, unwanted: set[int]
) -> None:
    scores = np.array(values, np.float32)
    allowed = np.array([row not in unwanted for row in range(len(values))])
    rows = [row for row in range(len(values)) if allowed[row] and values[row]]
    expected = sorted(sorted(rows, key=lambda row: (-values[row], row))[:most])
    assert ItemScores(scores).best(allowed, most).rows.tolist() == expected
    assert of_all(scores).within(allowed).positive().best(most).rows.tolist() == expected


@given(
    st.lists(st.tuples(st.integers(0, 9), st.floats(0.125, 8, width=32)), min_size=1, max_size=30),
    st.sampled_from([10, 10_000]),
)
def test_values_of_a_row_add_up_however_many_items_there_are(
    pairs: list[tuple[int, float]], items: int
) -> None:
    rows = np.array([row for row, _ in pairs], np.int32)
    values = np.array([value for _, value in pairs], np.float32)
    expected = np.bincount(rows, values, items).astype(np.float32)
    found, sums = sum_by_row(rows, values, items)
    assert len(found) == len(set(rows.tolist()))
    assert np.array_equal(spread(ScoredRows(found, sums), items), expected)


@given(
    scores=st.dictionaries(st.integers(0, 50), st.sampled_from([0.5, 1.0, 2.0]), max_size=30),
    order=st.randoms(use_true_random=False),
    most=st.integers(0, 12),
)
def test_the_best_of_unordered_items_are_those_with_the_lower_rows_of_equal_ones(
    scores: dict[int, float], order: random.Random, most: int
) -> None:
    rows = list(scores)
    order.shuffle(rows)
    values = np.array([scores[row] for row in rows], np.float32)
    found = ScoredRows.best_of(np.array(rows, np.int64), values, most)
    expected = sorted(scores, key=lambda row: (-scores[row], row))[:most]
    assert found.rows.tolist() == sorted(expected)
    assert found.scores.tolist() == [scores[row] for row in sorted(expected)]


def test_parts_of_any_length_are_scaled_each_for_itself() -> None:
    parts = [of_all(np.array(one, np.float32)) for one in ([3, 1, 2, 0], [], [5], [2, 2], [1, 9])]
    together = on_common_scale(parts)
    for part, scaled in zip(parts, together, strict=True):
        alone = on_common_scale([part])[0]
        assert np.array_equal(scaled.rows, alone.rows)
        assert np.array_equal(scaled.scores, alone.scores)
    deviation = np.sqrt(2 / 3)
    assert together[0].scores == pytest.approx([2 + 1 / deviation, 2 - 1 / deviation, 2])
    assert [len(one.rows) for one in together] == [3, 0, 0, 2, 2]
    assert together[3].scores.tolist() == [2, 2]


@given(
    seed=st.integers(0, 50),
    count=st.sampled_from([0, 1, 40, 2_000, 20_000]),
    most=st.sampled_from([1, 7, 300]),
    share=st.floats(0, 1),
    skew=st.sampled_from([0.0, 1.0, 4.0]),
)
@settings(deadline=None, max_examples=60)
def test_the_nearest_are_those_of_a_comparison_with_all(
    seed: int, count: int, most: int, share: float, skew: float
) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, 8)).astype(np.float32)
    vectors *= np.exp(-skew * rng.random((count, 1), np.float32))
    user = rng.standard_normal(8).astype(np.float32) * (seed % 3)
    allowed = rng.random(count) <= share
    ordered = OrderedFactors.of(vectors)
    other = rng.standard_normal(8).astype(np.float32)
    for one in (user, other):
        found = ordered.nearest_to_each([one], allowed, most)[0]
        together = ordered.nearest_to_each([other, one, user], allowed, most)[1]
        assert np.array_equal(together.rows, found.rows)
        assert np.array_equal(together.scores, found.scores)
    found = ordered.nearest_to_each([user], allowed, most)[0]
    expected = np.sort((vectors @ user)[allowed])[::-1][:most]
    assert np.sort(found.scores)[::-1] == pytest.approx(expected, abs=1e-5)
    assert found.scores == pytest.approx(vectors[found.rows] @ user, abs=1e-5)
    assert allowed[found.rows].all() and (np.diff(found.rows) > 0).all()

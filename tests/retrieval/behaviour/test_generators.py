"""Scores of generators follow their formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from nearline.times import DAY_US
from retrieval.behaviour.blend import DEPTH, Blend, WeightedGenerator, on_common_scale
from retrieval.behaviour.factors import FactorGenerator, ItemFactors
from retrieval.behaviour.history import History, Recency
from retrieval.behaviour.item_lists import ItemLists, ListGenerator
from retrieval.behaviour.popularity import BuyAgainGenerator, PopularityGenerator

# 0 goes with 1 and 2, 1 with 0; nothing goes with 2.
LISTS = ItemLists(
    np.array([0, 2, 3, 3]), np.array([1, 2, 0], np.int32), np.array([0.5, 0.25, 2], np.float32)
)


def history(*items: int, days_ago: tuple[float, ...] | None = None) -> History:
    ago = days_ago or tuple(range(len(items)))
    times = (np.array(ago) * -DAY_US).astype(np.int64)
    return History(np.array(items, np.int32), times, np.ones(len(items), np.float32))


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
    assert generator.scores(history(0, 1)) == pytest.approx([2 * older, 0.5, 0.25])
    assert generator.scores(history(1, 0)) == pytest.approx([2, 0.5 * older, 0.25 * older])
    assert generator.scores(history(2)).tolist() == [0, 0, 0]
    assert generator.scores(history()).tolist() == [0, 0, 0]
    assert generator._replace(newest=1).scores(history(0, 1)).tolist() == [0, 0.5, 0.25]
    assert [part.tolist() for part in LISTS.of(0)] == [[1, 2], [0.5, 0.25]]


@given(
    lists=st.lists(
        st.dictionaries(st.integers(0, 5), st.floats(0.125, 8, width=32), max_size=6),
        min_size=6,
        max_size=6,
    ),
    asked=st.lists(st.tuples(st.integers(0, 5), st.floats(0, 4, width=32)), max_size=8),
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
    assert made.weighted_sum(items, weights) == pytest.approx(weights @ matrix[items], rel=1e-5)


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
    twice = generator.scores(history(3, 8, 3))
    once = factors.fold_in(np.array([3, 8], np.int32), np.array([2, 1], np.float32))
    assert twice == pytest.approx(vectors @ once, rel=1e-5)
    assert not generator.scores(history()).any()


def test_buy_again_counts_visits_and_orders_the_rest_by_popularity() -> None:
    of_items = np.array([0, 10, 5, 1], np.float32)
    generator = BuyAgainGenerator(of_items, Recency(1.0), popularity=0.5)
    # Items 0 and 3 in one visit, 3 in the visit before.
    bought = history(3, 0, 3, days_ago=(0, 0, 7))
    assert generator.scores(bought) == pytest.approx([1, 0.5, 0.25, 0.05 + 1 + np.exp(-1)])
    assert generator.scores(history()) == pytest.approx([0, 0.5, 0.25, 0.05])
    assert of_items.tolist() == [0, 10, 5, 1]


def test_a_common_scale_has_mean_2_and_deviation_1_over_the_best() -> None:
    scores = np.zeros(1_000, np.float32)
    scores[:400] = np.arange(400, 0, -1)
    scaled = on_common_scale(scores)
    assert set(np.flatnonzero(scaled)) <= set(range(DEPTH))
    best = scores[:DEPTH]
    assert scaled[:DEPTH] == pytest.approx(2 + (best - best.mean()) / best.std(), abs=1e-5)
    spike = np.ones(200, np.float32)
    spike[7] = 1e6
    assert on_common_scale(spike)[7] == 8
    assert not on_common_scale(np.array([0, 3, 0], np.float32)).any()


@pytest.mark.parametrize("unit", [1e-12, 1e-9, 1.0, 1e12])
def test_scores_of_any_magnitude_keep_their_order_on_the_common_scale(unit: float) -> None:
    scaled = on_common_scale(np.array([3, 1, 0, 2], np.float32) * np.float32(unit))
    assert np.argsort(-scaled).tolist() == [0, 3, 1, 2]
    assert scaled[1] > 0


def test_equal_scores_are_equal_on_the_common_scale() -> None:
    assert on_common_scale(np.array([4, 0, 4], np.float32)).tolist() == [2, 0, 2]


def test_a_blend_adds_scales_and_leaves_out_what_the_user_had() -> None:
    first = PopularityGenerator(np.array([5, 4, 3, 0], np.float32))
    second = PopularityGenerator(np.array([0, 1, 2, 9], np.float32))
    parts = [WeightedGenerator(first), WeightedGenerator(second, 2.0)]
    whole = Blend(parts, repeats=True).scores(history(0))
    expected = on_common_scale(first.item_scores) + 2 * on_common_scale(second.item_scores)
    assert whole == pytest.approx(expected)
    without = Blend(parts).scores(history(0))
    assert without[0] == 0
    # What the user had is no part of the scale either.
    assert without[1] > whole[1]
    assert first.item_scores[0] == 5

"""The discount for popularity reorders the best items by arithmetic that a test can follow."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from retrieval.behaviour.popularity_discount import (
    WINDOW,
    discount_popularity,
    popularity_levels,
)

NUMBERS = np.array([7, 3, 5], np.int32)
SCORES = np.array([4, 3, 2], np.float32)
# The deviation of the scores is sqrt(2 / 3).
DEVIATION = math.sqrt(2 / 3)
LEVELS = np.zeros(9, np.float32)
LEVELS[[7, 3]] = 1, -1


def test_levels_are_standardized_logarithms_above_the_mean_of_the_known_items() -> None:
    counts = [math.e - 1, 0, math.e**3 - 1, math.e**2 - 1, math.e**2 - 1]
    levels = popularity_levels(np.array(counts, np.float32))
    # Logarithms 1, 0, 3, 2 and 2; without the second, the mean is 2, the deviation 1 / sqrt(2).
    assert levels.tolist() == pytest.approx([0, 0, math.sqrt(2), 0, 0], abs=1e-6)


@pytest.mark.parametrize("counts", [[], [0, 0], [3, 3, 0], [1]])
def test_equally_popular_items_have_no_level(counts: list[int]) -> None:
    assert popularity_levels(np.array(counts, np.int64)).tolist() == [0] * len(counts)


@pytest.mark.parametrize("debias", [0.25, 0.5, 1.0])
def test_a_deviation_of_popularity_counts_as_much_as_one_of_the_scores(debias: float) -> None:
    numbers, scores = discount_popularity(NUMBERS, SCORES, LEVELS[NUMBERS], debias)
    values = {7: 4 - debias * DEVIATION, 3: 3 + debias * DEVIATION, 5: 2.0}
    assert numbers.tolist() == sorted(values, key=values.__getitem__, reverse=True)
    # The lowest keeps its score, so that none is below the items that follow.
    assert scores.tolist() == pytest.approx([values[one] for one in numbers.tolist()])


def test_the_lowest_score_stays_the_lowest_when_a_popular_item_falls_to_the_end() -> None:
    levels = np.zeros(9, np.float32)
    levels[7] = 9
    numbers, scores = discount_popularity(NUMBERS, SCORES, levels[NUMBERS], 1.0)
    assert numbers.tolist() == [3, 5, 7]
    assert scores[-1] == 2 and (np.diff(scores) < 0).all()


def test_zero_and_equal_scores_change_nothing() -> None:
    numbers, scores = discount_popularity(NUMBERS, SCORES, LEVELS[NUMBERS], 0.0)
    assert numbers is NUMBERS and scores is SCORES
    ordered, equal = np.array([3, 5, 7], np.int32), np.ones(3, np.float32)
    numbers, scores = discount_popularity(ordered, equal, LEVELS[ordered], 1.0)
    assert numbers.tolist() == [3, 5, 7] and scores.tolist() == [1, 1, 1]


@given(st.data())
def test_only_the_best_items_are_reordered_and_scores_still_descend(data: st.DataObject) -> None:
    count = data.draw(st.integers(0, WINDOW + 5))
    seed, debias = data.draw(st.integers(0, 99)), data.draw(st.floats(0, 1))
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(count).astype(np.int32)
    before = np.sort(rng.normal(size=count).astype(np.float32))[::-1]
    levels = rng.normal(size=count).astype(np.float32)
    after, scores = discount_popularity(numbers, before, levels, debias)
    assert sorted(after[:WINDOW]) == sorted(numbers[:WINDOW])
    assert after[WINDOW:].tolist() == numbers[WINDOW:].tolist()
    assert (np.diff(scores) <= 0).all() and scores.dtype == np.float32

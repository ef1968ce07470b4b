"""Intervals have the right coverage and are reproducible."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from index_builder.evaluation.bootstrap import interval, paired_interval


def test_two_users_give_the_quantiles_of_their_three_possible_means() -> None:
    values = np.array([0.0, 1.0])
    # A draw has mean 0, 1/2 or 1 with probability 1/4, 1/2, 1/4.
    assert interval(values) == (0.0, 0.5, 1.0)
    assert interval(values, level=0.4) == (0.5, 0.5, 0.5)


def test_many_users_give_the_interval_of_the_normal_distribution(
    rng: np.random.Generator,
) -> None:
    values = rng.exponential(size=4_000)
    low, mean, high = interval(values)
    error = values.std() / np.sqrt(4_000)
    assert mean == values.mean()
    assert low == pytest.approx(mean - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.1 * error)


def test_the_interval_covers_the_true_difference_as_often_as_its_level(
    rng: np.random.Generator,
) -> None:
    inside = {0.8: 0, 0.95: 0}
    for seed in range(300):
        easy = rng.normal(size=80)
        ours, theirs = easy + rng.normal(0.3, 1, 80), easy + rng.normal(0, 1, 80)
        for level in inside:
            low, _, high = paired_interval(ours, theirs, draws=200, seed=seed, level=level)
            inside[level] += low <= 0.3 <= high
    # Two and a half standard errors of a share of 300, and a point that small samples cost.
    assert inside[0.8] / 300 == pytest.approx(0.79, abs=0.06)
    assert inside[0.95] / 300 == pytest.approx(0.94, abs=0.035)


def test_differences_between_users_do_not_widen_a_paired_interval(rng: np.random.Generator) -> None:
    theirs = rng.normal(0, 100, 50)
    low, mean, high = paired_interval(theirs + 1, theirs)
    assert [low, mean, high] == pytest.approx([1, 1, 1])


def test_equal_lists_have_an_empty_interval(rng: np.random.Generator) -> None:
    values = rng.random(70)
    assert paired_interval(values, values.copy()) == (0.0, 0.0, 0.0)


def test_equal_seeds_give_equal_intervals(rng: np.random.Generator) -> None:
    values = rng.random(70)
    assert interval(values, seed=5) == interval(values, seed=5)
    assert interval(values, seed=5) != interval(values, seed=6)


def test_memory_does_not_grow_with_draws(rng: np.random.Generator) -> None:
    values = rng.random(20_000)
    tracemalloc.start()
    interval(values, draws=400)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # All at once: 96 MB.
    assert peak < 32e6


def test_arguments_without_an_interval_are_refused() -> None:
    with pytest.raises(ValueError, match="3 values against 2: pass both for the same users"):
        paired_interval(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="no values"):
        interval(np.zeros(0))
    with pytest.raises(ValueError, match="0 draws"):
        interval(np.zeros(3), draws=0)

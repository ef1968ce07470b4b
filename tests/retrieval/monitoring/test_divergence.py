"""Distances between samples, checked by arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from retrieval.monitoring.divergence import (
    direction_distance,
    energy_distance,
    jensen_shannon,
    stability_index,
)

NUMBERS = st.lists(st.floats(-1, 1), min_size=1, max_size=50)


def test_the_stability_index_is_the_sum_over_the_bins_by_hand() -> None:
    # Two bins, cut at the median 2.5; (2, 2) and (1, 3) of four, half an observation more in each.
    b, s = (2.5 / 5, 2.5 / 5), (1.5 / 5, 3.5 / 5)
    by_hand = sum((y - x) * math.log(y / x) for x, y in zip(b, s, strict=True))
    assert stability_index([1, 2, 3, 4], [1, 3, 4, 9], bins=2) == pytest.approx(by_hand)


def test_the_stability_index_has_its_usual_bands(rng: np.random.Generator) -> None:
    baseline = rng.normal(size=1_000)
    assert stability_index(baseline, rng.normal(size=1_000)) < 0.05
    # A normal distribution that moved by half its width; the index is near (0.5)^2 then.
    assert 0.15 < stability_index(baseline, rng.normal(0.5, size=1_000)) < 0.35
    assert stability_index(baseline, rng.normal(2, size=1_000)) > 1


@given(baseline=NUMBERS, sample=NUMBERS)
def test_the_stability_index_is_a_number_of_at_least_0(
    baseline: list[float], sample: list[float]
) -> None:
    assert 0 <= stability_index(baseline, sample) < math.inf
    assert stability_index(baseline, baseline) == 0


def test_equal_numbers_are_one_bin_and_those_beside_it_are_another() -> None:
    assert stability_index([1.0] * 10, [1.0] * 10) == 0
    for beside in (0.0, 2.0):
        assert stability_index([1.0] * 10, [beside] * 10) > 1


def test_the_divergence_of_popularity_is_in_bits() -> None:
    assert jensen_shannon([1, 0], [0, 1]) == pytest.approx(1)
    assert jensen_shannon([2, 6], [10, 30]) == pytest.approx(0)
    # Of (1, 0) and (1/2, 1/2): the entropy of (3/4, 1/4), less half of one bit.
    by_hand = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)) - 0.5
    assert jensen_shannon([4, 0], [1, 1]) == pytest.approx(by_hand)


def test_the_direction_is_the_cosine_of_the_means() -> None:
    one = np.array([[2, 0], [0, 0]], np.float32)
    other = np.array([[0, 0], [3, 3]], np.float32)
    assert direction_distance(one, other) == pytest.approx(1 - math.sqrt(0.5))
    assert direction_distance(one, one) == pytest.approx(0)
    assert direction_distance(one, 0 * one) == 0


def test_the_energy_distance_by_hand() -> None:
    # Points 0 and 2 against 4 and 6: between 4, 6, 2, 4, mean 4; within 2 each.
    one, other = np.array([[0], [2]], np.float32), np.array([[4], [6]], np.float32)
    assert energy_distance(one, other) == pytest.approx(1 - (2 + 2) / (2 * 4))


def test_the_energy_distance_sees_what_the_means_do_not(rng: np.random.Generator) -> None:
    before = rng.normal(size=(400, 16)).astype(np.float32)
    assert energy_distance(before, rng.normal(size=(400, 16)).astype(np.float32)) < 0.01
    # Two heaps around the mean of before.
    heaps = rng.normal(0, 0.1, size=(400, 16)).astype(np.float32)
    heaps[::2] += 1
    heaps[1::2] -= 1
    assert energy_distance(before, heaps) > 0.02
    assert energy_distance(before[:2] * 0, before[:2] * 0) == 0

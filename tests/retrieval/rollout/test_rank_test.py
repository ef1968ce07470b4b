"""The rank test: valid for every distribution, and powerful."""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np
import pytest
from hypothesis import given, strategies as st

from retrieval.rollout.evidence import BIN_ENDS, RankTest, evidence_factor

BINS = len(BIN_ENDS) + 1
masses = st.lists(st.floats(0.01, 1.0), min_size=BINS, max_size=BINS)


def mean_evidence(share: float, current: list[float], canary: list[float]) -> float:
    """Returns the mean of the evidence after one value, by the bins' masses in both arms."""
    mean = 0.0
    for bin_number in range(BINS):
        for of_canary in (False, True):
            test = RankTest(share)
            test.event(of_canary, bin_number)
            mass = share * canary[bin_number] if of_canary else (1 - share) * current[bin_number]
            mean += mass * evidence_factor(test.log_evidence)
    return mean


@given(share=st.floats(0.01, 0.99), weights=masses)
def test_the_mean_is_one_if_both_arms_share_a_distribution(
    share: float, weights: list[float]
) -> None:
    shared = [one / sum(weights) for one in weights]
    assert mean_evidence(share, shared, shared) == pytest.approx(1.0, abs=1e-9)


@given(share=st.floats(0.01, 0.99), weights=masses, moved=st.lists(st.floats(0, 1), min_size=6))
def test_the_mean_is_at_most_one_if_the_canary_is_faster(
    share: float, weights: list[float], moved: list[float]
) -> None:
    current = [one / sum(weights) for one in weights]
    canary = list(current)
    for bin_number, part in enumerate(moved[: BINS - 1]):
        mass = part * canary[bin_number + 1]
        canary[bin_number] += mass
        canary[bin_number + 1] -= mass
    assert mean_evidence(share, current, canary) <= 1.0 + 1e-9


def test_evidence_of_a_bin_is_the_mean_of_likelihood_ratios() -> None:
    test = RankTest(0.1)
    test.event(True, BINS - 1)

    def above(value: float) -> float:
        return math.erfc(value / math.sqrt(2)) / 2

    ratios = [above(1.6448536 - shift) / 0.05 for shift in (0.15, 0.3, 0.6, 1.2, 2.4)]
    chances = [0.1 * one / (0.1 * one + 0.9) for one in ratios]
    assert evidence_factor(test.log_evidence) == pytest.approx(
        0.5 + 0.5 * sum(chances) / 0.1 / 5, rel=1e-6
    )


@pytest.mark.parametrize(("ratio", "least", "most"), [(1.0, 0, 1), (1.2, 19, 20)])
def test_a_fifth_more_latency_is_detected_and_equal_latency_is_not(
    rng: np.random.Generator, ratio: float, least: int, most: int
) -> None:
    ends = np.exp(0.4 * rng.normal(size=5_000))
    thresholds = np.quantile(ends, BIN_ENDS).tolist()
    found = 0
    for _ in range(20):
        test = RankTest(0.1)
        canary = rng.random(6_000) < 0.1
        values = np.exp(0.4 * rng.normal(size=6_000)) * np.where(canary, ratio, 1.0)
        for of_canary, value in zip(canary.tolist(), values.tolist(), strict=True):
            test.event(of_canary, bisect_left(thresholds, value))
        found += evidence_factor(test.log_evidence) > 700
    assert least <= found <= most

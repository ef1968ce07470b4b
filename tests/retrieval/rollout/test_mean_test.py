"""The mean test: evidence by hand, and its error rate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from retrieval.rollout.evidence import MeanTest, evidence_factor


@given(
    least=st.floats(0.01, 1.0),
    values=st.lists(st.integers(0, 10).map(lambda one: one / 10), max_size=40),
)
def test_evidence_is_the_mean_of_six_bets(least: float, values: list[float]) -> None:
    test = MeanTest(least)
    for value in values:
        test.add(value)
    whole = 0.0
    for power in range(6):
        bet = 0.9 / max(1 - least, 0.02) / 2**power
        whole += math.prod(1 + bet * (least - value) for value in values) / 6
    assert evidence_factor(test.log_evidence) == pytest.approx(
        min(0.5 + 0.5 * whole, math.exp(700)), rel=1e-9
    )


@pytest.mark.parametrize("least", [0.5, 0.94, 0.99])
def test_the_mean_over_outcomes_is_one_at_the_promised_mean(least: float) -> None:
    mean = 0.0
    for value, chance in ((1.0, least), (0.0, 1 - least)):
        test = MeanTest(least)
        test.add(value)
        mean += chance * evidence_factor(test.log_evidence)
    assert mean == pytest.approx(1.0, abs=1e-9)


def test_one_in_ten_is_an_upper_bound_of_ever_reaching_ten(rng: np.random.Generator) -> None:
    reached, runs = 0, 300
    for values in (rng.binomial(10, 0.94, size=(runs, 200)) / 10).tolist():
        test = MeanTest(0.94)
        for value in values:
            test.add(value)
            if test.log_evidence >= math.log(10):
                reached += 1
                break
    assert reached <= 0.1 * runs


def test_recall_of_four_fifths_is_detected_in_sixty_searches(rng: np.random.Generator) -> None:
    found = 0
    for values in (rng.binomial(10, rng.beta(4, 1, size=(100, 60))) / 10).tolist():
        test = MeanTest(0.94)
        for value in values:
            test.add(value)
        found += evidence_factor(test.log_evidence) >= 700
    assert found >= 95


def test_perfect_values_give_no_evidence_against_a_promise_of_one() -> None:
    test = MeanTest(1.0)
    for _ in range(2_000):
        test.add(1.0)
    assert evidence_factor(test.log_evidence) == pytest.approx(1.0)
    for _ in range(2_000):
        test.add(0.0)
    assert math.isfinite(test.log_evidence)
    assert math.isfinite(evidence_factor(test.log_evidence))

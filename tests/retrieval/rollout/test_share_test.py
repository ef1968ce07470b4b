"""The share test: evidence by hand, and its error rate."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from retrieval.rollout.evidence import ShareTest, Side, evidence_factor

_ODDS_RATIOS = [math.exp(one) for one in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)]
SIDES: list[Side] = ["greater", "less", "either"]


def having_seen(share: float, side: Side, events: list[bool]) -> ShareTest:
    test = ShareTest(share, side)
    for canary in events:
        test.add(canary)
    return test


def mixed_by_hand(share: float, side: Side, events: list[bool]) -> float:
    """Half is kept, half is spread over the alternatives, each a likelihood ratio."""
    ratios = [one for one in _ODDS_RATIOS if side != "less"]
    ratios += [1 / one for one in _ODDS_RATIOS if side != "greater"]
    whole = 0.0
    for ratio in ratios:
        odds = share / (1 - share) * ratio
        chance = odds / (1 + odds)
        product = 1.0
        for canary in events:
            product *= chance / share if canary else (1 - chance) / (1 - share)
        whole += product / len(ratios)
    return 0.5 + 0.5 * whole


@given(
    share=st.floats(0.02, 0.98),
    events=st.lists(st.booleans(), max_size=60),
    side=st.sampled_from(SIDES),
)
def test_evidence_is_the_mean_of_likelihood_ratios(
    share: float, events: list[bool], side: Side
) -> None:
    test = having_seen(share, side, events)
    assert evidence_factor(test.log_evidence) == pytest.approx(
        mixed_by_hand(share, side, events), rel=1e-9
    )


@pytest.mark.parametrize("side", SIDES)
def test_the_mean_over_outcomes_is_one_if_the_canary_is_as_good(side: Side) -> None:
    share = 0.2
    mean = sum(
        evidence_factor(having_seen(share, side, list(events)).log_evidence)
        * math.prod(share if canary else 1 - share for canary in events)
        for events in itertools.product((False, True), repeat=8)
    )
    assert mean == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(("side", "chance"), [("greater", 0.15), ("less", 0.25)])
def test_the_mean_over_outcomes_is_less_if_the_canary_is_better(side: Side, chance: float) -> None:
    mean = sum(
        evidence_factor(having_seen(0.2, side, list(events)).log_evidence)
        * math.prod(chance if canary else 1 - chance for canary in events)
        for events in itertools.product((False, True), repeat=8)
    )
    assert mean < 1.0


@pytest.mark.parametrize("side", SIDES)
def test_one_in_ten_is_an_upper_bound_of_ever_reaching_ten(
    rng: np.random.Generator, side: Side
) -> None:
    reached, runs = 0, 300
    for events in (rng.random((runs, 400)) < 0.1).tolist():
        test = ShareTest(0.1, side)
        for canary in events:
            test.add(canary)
            if test.log_evidence >= math.log(10):
                reached += 1
                break
    assert reached <= 0.1 * runs


@pytest.mark.parametrize(
    ("side", "chance"), [("greater", 0.2), ("less", 0.04), ("either", 0.2), ("either", 0.04)]
)
def test_twice_or_a_third_of_the_share_is_detected_in_hundreds_of_events(
    rng: np.random.Generator, side: Side, chance: float
) -> None:
    events = (rng.random((20, 1_000)) < chance).tolist()
    assert all(evidence_factor(having_seen(0.1, side, one).log_evidence) > 700 for one in events)


def test_four_failures_of_the_canary_alone_suffice() -> None:
    assert evidence_factor(having_seen(0.1, "greater", [True] * 4).log_evidence) > 700


@pytest.mark.parametrize("side", ["greater", "less"])
def test_evidence_is_capped_to_a_finite_number(side: Side) -> None:
    test = ShareTest(0.1, side)
    for _ in range(20_000):
        test.add(side == "greater")
    assert 2_000 < test.log_evidence < math.inf
    assert 1e300 < evidence_factor(test.log_evidence) < math.inf


def test_tests_that_start_later_add_up_as_by_hand(rng: np.random.Generator) -> None:
    events = (rng.random(1_600) < 0.13).tolist()
    starts = {0: 0.5, 500: 0.5 - 0.5 / 2, 1_000: 0.5 / 2 - 0.5 / 3, 1_500: 0.5 / 3 - 0.5 / 4}
    whole = 0.5 / 4 + sum(
        weight * (2 * mixed_by_hand(0.1, "greater", events[start:]) - 1)
        for start, weight in starts.items()
    )
    found = evidence_factor(having_seen(0.1, "greater", events).log_evidence)
    assert found == pytest.approx(whole, rel=1e-9)


def test_a_late_regression_is_detected_soon(rng: np.random.Generator) -> None:
    test = having_seen(0.1, "greater", (rng.random(100_000) < 0.1).tolist())
    assert evidence_factor(test.log_evidence) < 700
    for canary in (rng.random(1_200) < 0.25).tolist():
        test.add(canary)
    assert evidence_factor(test.log_evidence) > 700


@pytest.mark.parametrize("least", [0.5, 0.94, 0.99])
@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_values_of_the_promised_mean_give_no_evidence(least: float, spread: float) -> None:
    low, high = least - spread * least, least + spread * (1 - least)
    chance_of_high = 0.5 if not spread else (least - low) / (high - low)
    mean = 0.0
    for value, chance in ((low, 1 - chance_of_high), (high, chance_of_high)):
        test = ShareTest(least, "less")
        test.add(value)
        mean += chance * evidence_factor(test.log_evidence)
    assert mean <= 1.0 + 1e-9


def test_recall_of_four_fifths_is_detected_in_150_searches(rng: np.random.Generator) -> None:
    found = 0
    for values in (rng.binomial(10, rng.beta(4, 1, size=(100, 150))) / 10).tolist():
        test = ShareTest(0.94, "less")
        for value in values:
            test.add(value)
        found += evidence_factor(test.log_evidence) >= 600
    assert found >= 95


def test_perfect_values_give_no_evidence_against_a_promise_of_one() -> None:
    test = ShareTest(1.0, "less")
    for _ in range(2_000):
        test.add(1.0)
    assert evidence_factor(test.log_evidence) <= 1.0
    for _ in range(2_000):
        test.add(0.0)
    assert 600 < evidence_factor(test.log_evidence) < math.inf

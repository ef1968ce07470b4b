"""The share test: evidence by hand, and its error rate."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from retrieval.rollout.evidence import EProcess, ShareTest, Side, evidence_factor

_ODDS_RATIOS = [math.exp(one) for one in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)]
SIDES: list[Side] = ["greater", "less", "either"]


def having_seen(share: float, side: Side, events: list[bool]) -> ShareTest:
    test = ShareTest(share, side)
    for canary in events:
        test.event(canary)
    return test


def mixed_by_hand(share: float, events: list[bool], *, less: bool) -> float:
    """Half is kept, half is spread over seven alternatives, each a likelihood ratio."""
    whole = 0.0
    for ratio in _ODDS_RATIOS:
        odds = share / (1 - share) * (1 / ratio if less else ratio)
        chance = odds / (1 + odds)
        product = 1.0
        for canary in events:
            product *= chance / share if canary else (1 - chance) / (1 - share)
        whole += product / len(_ODDS_RATIOS)
    return 0.5 + 0.5 * whole


@given(
    share=st.floats(0.02, 0.98),
    events=st.lists(st.booleans(), max_size=60),
    less=st.booleans(),
)
def test_one_sided_evidence_is_the_mean_of_likelihood_ratios(
    share: float, events: list[bool], less: bool
) -> None:
    test = having_seen(share, "less" if less else "greater", events)
    assert evidence_factor(test.log_evidence) == pytest.approx(
        mixed_by_hand(share, events, less=less), rel=1e-9
    )


@given(share=st.floats(0.02, 0.98), events=st.lists(st.booleans(), max_size=60))
def test_two_sided_evidence_is_that_of_an_urn(share: float, events: list[bool]) -> None:
    urn = {True: 100 * share, False: 100 * (1 - share)}
    product = 1.0
    for canary in events:
        product *= urn[canary] / sum(urn.values()) / (share if canary else 1 - share)
        urn[canary] += 1
    assert evidence_factor(having_seen(share, "either", events).log_evidence) == pytest.approx(
        product, rel=1e-9
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
            test.event(canary)
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


def test_a_hundredth_more_is_detected_in_ten_million_events() -> None:
    test = ShareTest(0.1, "either")
    test.canary, test.current = 1_000_000, 9_000_000
    # By Stirling: half the logarithm of how much sharper than the prior.
    assert test.log_evidence == pytest.approx(-0.5 * math.log(1e7 / 100), abs=0.01)
    test.canary, test.current = 1_010_000, 8_990_000
    assert 40 < test.log_evidence < 60


@pytest.mark.parametrize("side", ["greater", "less"])
def test_evidence_is_capped_to_a_finite_number(side: Side) -> None:
    test = ShareTest(0.1, side)
    for _ in range(20_000):
        test.event(side == "greater")
    assert 2_000 < test.log_evidence < math.inf
    assert 1e300 < evidence_factor(test.log_evidence) < math.inf


def test_bets_that_start_later_add_up_as_by_hand(rng: np.random.Generator) -> None:
    gains = rng.normal(scale=0.1, size=(1_600, 2))
    capital = EProcess(2)
    for row in gains.tolist():
        capital.bet(row)
    starts = {0: 0.5, 500: 0.5 - 0.5 / 2, 1_000: 0.5 / 2 - 0.5 / 3, 1_500: 0.5 / 3 - 0.5 / 4}
    whole = 0.5 / 4 + sum(
        weight * np.exp(gains[start:].sum(axis=0)).mean() for start, weight in starts.items()
    )
    assert math.exp(capital.log) == pytest.approx(whole, rel=1e-9)


def test_a_late_regression_is_detected_soon(rng: np.random.Generator) -> None:
    test = having_seen(0.1, "greater", (rng.random(100_000) < 0.1).tolist())
    assert evidence_factor(test.log_evidence) < 700
    for canary in (rng.random(1_200) < 0.25).tolist():
        test.event(canary)
    assert evidence_factor(test.log_evidence) > 700

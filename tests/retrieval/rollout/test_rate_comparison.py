"""The comparison of two arms: evidence by hand, error rates, tenants, and the stated size."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nearline.v1 import admin_pb2
from retrieval.rollout.rate_comparison import LIMIT, RateComparison, known_tenant

ONE = {"a": 1}
EQUAL = {"a": 1, "b": 1, "c": 1, "d": 1}


def click(
    comparison: RateComparison, current: int, canary: int, tenant: str = "a", first: int = 0
) -> None:
    """Counts so many first clicks of each arm, all of different users."""
    for number in range(current + canary):
        comparison.add(number >= current, (first + number) << 20, tenant)


def told(comparison: RateComparison, lists: int = 1_000) -> admin_pb2.RateVerdict:
    return comparison.verdict("clicks", lists)


def by_hand(share: float, effect: float, current: int, canary: int, sign: int) -> float:
    """Half of the capital is bet on the first clicks, spread over six true effects."""
    whole = 0.0
    for power, weight in enumerate((1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 32)):
        odds = share / (1 - share) * (1 + effect) ** (sign * 2**power)
        chance = odds / (1 + odds)
        whole += weight * (chance / share) ** canary * ((1 - chance) / (1 - share)) ** current
    return 0.5 + 0.5 * whole


@pytest.mark.parametrize(
    ("share", "current", "canary", "verdict"),
    [
        (0.5, 50, 50, "undecided"),
        (0.5, 200, 300, "better"),
        (0.5, 300, 200, "worse"),
        (0.1, 450, 50, "undecided"),
        (0.1, 420, 100, "better"),
        (0.1, 500, 20, "worse"),
    ],
)
def test_evidence_is_the_mean_likelihood_ratio_of_the_likelier_side(
    share: float, current: int, canary: int, verdict: str
) -> None:
    comparison = RateComparison(share, 0.2, ONE)
    click(comparison, current, canary)
    found = told(comparison)
    evidence = max(by_hand(share, 0.2, current, canary, sign) for sign in (1, -1))
    assert found.evidence == pytest.approx(evidence)
    assert (found.verdict, found.rate, found.limit) == (verdict, "clicks", 80)
    assert (evidence >= LIMIT) == (verdict != "undecided")
    assert not found.held_back and not found.tenant


def test_a_user_counts_at_most_three_times() -> None:
    once, often = RateComparison(0.5, 0.1, ONE), RateComparison(0.5, 0.1, ONE)
    for comparison, clicks in ((once, 1), (often, 1_000)):
        for _ in range(clicks):
            comparison.add(True, 7 << 20, "a")
    # Each counted click multiplies its part of the capital by at most 1 / share.
    assert told(once).evidence < told(often).evidence < 2
    assert often.log_evidence == pytest.approx(once.log_evidence)


def test_frequent_users_who_all_click_in_either_arm_are_told_apart(
    rng: np.random.Generator,
) -> None:
    comparison = RateComparison(0.5, 0.2, ONE)
    for user in range(4_000):
        canary = bool(rng.random() < 0.5)
        for _ in range(rng.poisson(7.0 if canary else 5.0)):
            comparison.add(canary, user << 20, "a")
    assert told(comparison).verdict == "better"


def test_no_difference_is_rarely_claimed_however_often_it_is_read(
    rng: np.random.Generator,
) -> None:
    claims = 0
    for _ in range(150):
        comparison = RateComparison(0.3, 0.2, ONE)
        for number, canary in enumerate((rng.random(800) < 0.3).tolist()):
            comparison.add(canary, number << 20, "a")
            if number % 20 == 19 and told(comparison).verdict != "undecided":
                claims += 1
                break
    # At most 0.025 for one of the two rates: 3.75 expected at most, and three deviations are 5.7.
    assert claims <= 9


@pytest.mark.parametrize("upwards", [True, False])
def test_a_tenant_that_clicks_in_one_arm_alone_turns_no_verdict_round(upwards: bool) -> None:
    comparison = RateComparison(0.5, 0.2, EQUAL)
    truth = "better" if upwards else "worse"
    for number, tenant in enumerate("bcd"):
        few, many = 150, 250
        arms = (few, many) if upwards else (many, few)
        click(comparison, *arms, tenant, first=10_000 * number)
    assert told(comparison).verdict == truth
    for clicks in range(0, 5_000, 200):
        click(comparison, *((200, 0) if upwards else (0, 200)), "a", first=100_000 + clicks)
        found = told(comparison)
        assert found.verdict in (truth, "undecided")
    assert (found.verdict, found.tenant) == ("undecided", "a")
    assert found.held_back == f"a tenant with 81% of the clicks; without it: {truth}"
    assert found.evidence < LIMIT
    # Nor does it back a canary out.
    assert comparison.log_evidence < math.log(LIMIT)


def test_a_verdict_needs_more_than_one_tenant() -> None:
    comparison = RateComparison(0.5, 0.2, EQUAL)
    click(comparison, 100, 400, "a")
    click(comparison, 10, 10, "b", first=1_000)
    found = told(comparison)
    assert (found.verdict, found.tenant) == ("undecided", "a")
    assert found.held_back == "a tenant with 96% of the clicks; without it: undecided"
    click(comparison, 100, 300, "b", first=2_000)
    assert told(comparison).verdict == "better" and not told(comparison).held_back


@pytest.mark.parametrize(
    ("requests", "verdict"),
    [
        ({}, "better"),
        ({"a": 5_000}, "better"),
        # Tests of an operator.
        ({"a": 5_000, "default": 5}, "better"),
        ({"a": 5_000, "b": 50}, "undecided"),
    ],
)
def test_a_tenant_that_is_alone_decides(requests: dict[str, int], verdict: str) -> None:
    comparison = RateComparison(0.5, 0.2, requests)
    click(comparison, 100, 400, "a")
    assert told(comparison).verdict == verdict


def test_the_stated_size_follows_from_the_clicks_per_list() -> None:
    comparison = RateComparison(0.5, 0.2, ONE)
    click(comparison, 20, 29)
    assert not told(comparison).HasField("lists_needed")
    click(comparison, 1, 0, first=1_000)
    # An event is worth log(1.2)^2 / 8. With the weights 1/2 and 1/2, evidence must grow to 320; a
    # normal variable with twice its mean as variance does so by 1.4 deviations.
    worth, goal = math.log(1.2) ** 2 / 8, math.log(320)
    events = ((1.4 + math.sqrt(1.4**2 + 2 * goal)) ** 2 / 2) / worth
    found = told(comparison, 1_000)
    assert found.lists_needed == math.ceil(1_000 * events / 50 - 1_000)
    assert comparison.verdict("clicks", 500).lists_needed == pytest.approx(
        found.lists_needed / 2, abs=1
    )
    click(comparison, 0, 300, first=2_000)
    assert (told(comparison).verdict, told(comparison).lists_needed) == ("better", 0)


def test_without_its_largest_tenant_a_collection_needs_more_lists() -> None:
    alone, several = RateComparison(0.5, 0.2, ONE), RateComparison(0.5, 0.2, EQUAL)
    for comparison in (alone, several):
        click(comparison, 60, 60, "a")
        click(comparison, 20, 20, "b", first=1_000)
    assert told(several).lists_needed > 4 * told(alone).lists_needed


def test_the_number_of_tenants_is_bounded() -> None:
    known: dict[str, int] = {}
    for number in range(1_000):
        known[known_tenant(f"t{number}", known)] = 1
    assert len(known) == 257
    assert known_tenant("t7", known) == "t7"
    assert known_tenant("t999", known) == "(others)"

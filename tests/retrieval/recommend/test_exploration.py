"""Explored places: their candidates and propensities."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings

from retrieval.recommend.policies import ExploreRule, Policy, Quota
from retrieval.recommend.rules import Candidate, apply_rules
from tests.retrieval.recommend.scenarios import (
    NO_IDS,
    NOW_US,
    PLAIN,
    Scenario,
    candidate,
    keeps,
    scenarios,
)


@settings(max_examples=60)
@given(scenarios())
def test_draws_come_from_the_best_candidates_of_which_any_keep_the_quotas(
    scenario: Scenario,
) -> None:
    explore = scenario.policy.explore or ExploreRule(2, 4)
    policy = replace(scenario.policy, explore=explore)
    lists = [scenario._replace(policy=policy).arranged(seed).places for seed in range(5)]
    certain = [one.candidate for one in lists[0] if one.reasons[0] != "explored"]
    pinned = sum(one.reasons[0] == "pinned" for one in lists[0])
    wanted = min(explore.places, scenario.n - pinned)
    pool: list[Candidate] = []
    for one in scenario.candidates:
        if scenario.allows(one) and one not in certain and len(pool) < explore.pool:
            draws = (draw for size in range(wanted) for draw in combinations(pool, size))
            if all(keeps([*certain, *draw, one], policy.quotas) for draw in draws):
                pool.append(one)
    for places in lists:
        assert [one.candidate for one in places[: len(certain)]] == certain
        explored = places[len(certain) :]
        assert len(explored) == min(wanted, len(pool))
        assert all(one.candidate in pool for one in explored)
        assert all(one.propensity == len(explored) / len(pool) for one in explored)


def test_propensities_are_the_frequencies_of_explored_items() -> None:
    # Of brand x one more fits: of i3, i4 and i6 only the best may be drawn with another.
    brands = ["x", "y", None, "x", "x", None, "x", None, None, None]
    made = [candidate(number, brand=brand) for number, brand in enumerate(brands)]
    policy = Policy(
        name="home", version=1, quotas=(Quota("brand", 2),), explore=ExploreRule(2, 4)
    )  # fmt: skip
    scenario = Scenario(made, policy, 5, excluded=frozenset({"i9"}))
    draws = 3_000
    shown: dict[tuple[str, ...], int] = {}
    for seed in range(draws):
        places = scenario.arranged(seed).places
        ids = tuple(one.candidate.id for one in places)
        assert ids[:3] == ("i0", "i1", "i2")
        assert [one.propensity for one in places] == [1, 1, 1, 2 / 4, 2 / 4]
        shown[ids[3:]] = shown.get(ids[3:], 0) + 1
    # All ordered pairs of the pool, each as often: five deviations are 0.025 of the draws.
    pool = ["i3", "i5", "i7", "i8"]
    assert set(shown) == {(a, b) for a in pool for b in pool if a != b}
    for pair in shown.values():
        assert pair / draws == pytest.approx(1 / 12, abs=5 * (11 / 144 / draws) ** 0.5)
    for one in pool:
        share = sum(count for pair, count in shown.items() if one in pair) / draws
        assert share == pytest.approx(2 / 4, abs=5 * (0.25 / draws) ** 0.5)


@pytest.mark.parametrize(
    ("n", "pool", "certain", "propensity"),
    [
        (3, 4, 2, 1 / 4),
        (10, 4, 9, 1 / 1),
        (12, 4, 10, None),
        (9, 4, 8, 1 / 2),
        (1, 4, 0, 1 / 4),
    ],
)
def test_one_explored_place_has_a_propensity_of_one_over_the_pool(
    n: int, pool: int, certain: int, propensity: float | None
) -> None:
    made = [candidate(number) for number in range(10)]
    policy = Policy(name="home", version=1, explore=ExploreRule(1, pool))
    places = Scenario(made, policy, n).arranged().places
    assert [one.propensity for one in places[:certain]] == [1.0] * certain
    assert [one.propensity for one in places[certain:]] == [propensity] * (propensity is not None)
    assert len(places) == min(n, 10)


def test_pinned_items_are_never_explored_away() -> None:
    made = [candidate(number) for number in range(6)]
    policy = Policy(name="home", version=1, explore=ExploreRule(3, 5), pinned=("i4", "i2"))
    scenario = Scenario(made, policy, 3, pinned=[made[4], made[2]])
    places = scenario.arranged().places
    assert [one.candidate.id for one in places[:2]] == ["i4", "i2"]
    assert [one.propensity for one in places] == [1.0, 1.0, 1 / 4]
    assert Scenario(made, policy, 1, pinned=[made[4], made[2]]).ids() == ["i4"]


def test_without_exploring_nothing_is_drawn(rng: np.random.Generator) -> None:
    made = [candidate(number) for number in range(6)]
    before = rng.bit_generator.state
    for policy in (PLAIN, replace(PLAIN, explore=ExploreRule(1, 3))):
        assert rng.bit_generator.state == before
        apply_rules(
            made,
            policy,
            3,
            seen=NO_IDS,
            excluded=NO_IDS,
            pinned=(),
            diversity=None,
            now_us=NOW_US,
            rng=rng,
        )
    assert rng.bit_generator.state != before

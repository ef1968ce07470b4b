"""Lists keep the rules of their surface, compared with a literal implementation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from nearline.times import DAY_US, from_us
from retrieval.recommend import selection
from retrieval.recommend.policies import ExploreRule, FreshRule, Policy, Quota
from retrieval.recommend.rules import Candidate
from retrieval.search.diversity import diverse_order
from tests.retrieval.recommend.scenarios import (
    IDS,
    NO_IDS,
    NOW_US,
    PLAIN,
    Scenario,
    candidate,
    is_new,
    keeps,
    scenarios,
)


@given(scenarios(), st.integers(0, 3))
def test_every_list_keeps_the_rules(scenario: Scenario, seed: int) -> None:
    policy = scenario.policy
    places = scenario.arranged(seed).places
    listed = [placed.candidate for placed in places]
    ids = [one.id for one in listed]
    assert len(ids) <= scenario.n
    assert len(set(ids)) == len(ids)
    assert all(scenario.allows(one) for one in listed)
    assert keeps(listed, policy.quotas)
    assert set(ids) <= {one.id for one in [*scenario.candidates, *scenario.pinned]}
    assert scenario.arranged(seed).places == places

    # Pinned ones are first, in their order, as far as the quotas and n go.
    pinned: list[Candidate] = []
    for one in scenario.pinned:
        if scenario.allows(one) and keeps([*pinned, one], policy.quotas):
            pinned.append(one)
    pinned = pinned[: scenario.n]
    assert listed[: len(pinned)] == pinned
    for place, placed in enumerate(places):
        assert (placed.reasons[0] == "pinned") == (place < len(pinned))
        assert placed.reasons[-1:] == placed.candidate.reasons
        if policy.explore is None:
            assert placed.propensity is None
        elif placed.reasons[0] != "explored":
            assert placed.propensity == 1.0
    explored = [place for place, one in enumerate(places) if one.reasons[0] == "explored"]
    assert explored == list(range(len(places) - len(explored), len(places)))

    # A list is short only where nothing more fits (or a new item took the place of another).
    if len(ids) < scenario.n and policy.fresh is None:
        rest = [one for one in scenario.candidates if one.id not in ids and scenario.allows(one)]
        assert not any(keeps([*listed, one], policy.quotas) for one in rest)


@given(scenarios(diversity=False, fresh=False, explore=False))
def test_without_diversity_the_best_are_taken_in_their_order(scenario: Scenario) -> None:
    expected: list[Candidate] = []
    for one in [*scenario.pinned, *scenario.candidates]:
        fits = keeps([*expected, one], scenario.policy.quotas)
        if scenario.allows(one) and one not in expected and fits and len(expected) < scenario.n:
            expected.append(one)
    assert scenario.ids() == [one.id for one in expected]


@given(scenarios(fresh=False, explore=False))
def test_each_diverse_step_takes_the_best_that_fits(scenario: Scenario) -> None:
    policy = scenario.policy
    weight = policy.diversity if scenario.diversity is None else scenario.diversity
    places = scenario.arranged().places
    listed = [placed.candidate for placed in places]
    pinned = sum(placed.reasons[0] == "pinned" for placed in places)
    left = [
        one for one in scenario.candidates if scenario.allows(one) and one not in listed[:pinned]
    ]
    top = max((one.score for one in left), default=1.0)

    def cosine(a: Candidate, b: Candidate) -> float:
        if a.vector is None or b.vector is None:
            return 0.0
        product = float(np.linalg.norm(a.vector) * np.linalg.norm(b.vector))
        return float(a.vector @ b.vector) / product if product else 0.0

    for step in range(pinned, len(listed)):
        before = listed[:step]

        def gain(one: Candidate, before: list[Candidate] = before) -> float:
            penalty = max((cosine(one, other) for other in before), default=0.0)
            return (1 - weight) * one.score / top - weight * penalty

        fitting = [
            one for one in left if one not in before and keeps([*before, one], policy.quotas)
        ]
        assert gain(listed[step]) >= max(map(gain, fitting)) - 1e-5


@given(st.integers(1, 12), st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.integers(0, 99))
def test_diversity_alone_is_that_of_searches(n: int, diversity: float, seed: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((10, 3)).astype(np.float32)
    made = [candidate(number, vector=vectors[number].tolist()) for number in range(10)]
    scores = np.array([one.score for one in made])
    expected = diverse_order(scores, vectors, n, diversity)
    assert Scenario(made, PLAIN, n, diversity=diversity).ids() == [IDS[one] for one in expected]


def test_candidates_beyond_the_budget_of_comparisons_follow_in_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = [candidate(number, vector=[1, 0.1 * number]) for number in range(9)]
    made.append(candidate(9, vector=[0, 1]))
    assert Scenario(made, PLAIN, 2, diversity=1.0).ids() == [IDS[0], IDS[9]]
    monkeypatch.setattr(selection, "MAX_COMPARISONS", 8)
    # Of the first four, the last is most unlike the first.
    assert Scenario(made, PLAIN, 2, diversity=1.0).ids() == [IDS[0], IDS[3]]
    monkeypatch.setattr(selection, "MAX_COMPARISONS", 10)
    assert Scenario(made, PLAIN, 5, diversity=1.0).ids() == [IDS[0], IDS[1], *IDS[2:5]]


def test_no_known_vectors_keep_the_order() -> None:
    assert Scenario([candidate(0), candidate(1)], PLAIN, 2, diversity=1.0).ids() == IDS[:2]
    assert Scenario([], PLAIN, 2, diversity=1.0).ids() == []


@given(scenarios(explore=False))
def test_new_items_take_the_last_places_of_others(scenario: Scenario) -> None:
    policy = scenario.policy
    fresh = policy.fresh or FreshRule("released", 2, 2)

    def listed(rule: FreshRule | None) -> list[Candidate]:
        ruled = Policy(name="home", version=1, quotas=policy.quotas, blocked=policy.blocked,
                       diversity=policy.diversity, fresh=rule)  # fmt: skip
        return [placed.candidate for placed in scenario._replace(policy=ruled).arranged().places]

    before, after = listed(None), listed(fresh)
    assert len(before) == len(after)
    pinned = [one for one in before if one in scenario.pinned and scenario.allows(one)]
    fixed = next((p for p, one in enumerate(before) if one not in pinned), len(before))
    changed = [place for place in range(len(before)) if before[place] != after[place]]
    came = [after[place] for place in changed]
    assert all(is_new(one, fresh.days) for one in came)
    assert not any(is_new(before[place], fresh.days) for place in changed)
    assert [one.id for one in came] == sorted(one.id for one in came)
    new = sum(is_new(one, fresh.days) for one in after)
    if changed:
        assert new <= fresh.places
    if not policy.quotas:
        # The last ones that are not new, and the best that are.
        old = [
            place for place in range(fixed, len(before)) if not is_new(before[place], fresh.days)
        ]
        assert changed == old[len(old) - len(changed) :]
        new_ones = [one for one in scenario.candidates if is_new(one, fresh.days)]
        others = [one for one in new_ones if scenario.allows(one) and one not in before]
        assert came == others[: len(came)]
    if new < fresh.places:
        # No item that is new could have had the place of one that is not.
        for one in scenario.candidates:
            if scenario.allows(one) and is_new(one, fresh.days) and one not in after:
                for place, other in enumerate(after):
                    if other not in scenario.pinned and not is_new(other, fresh.days):
                        swapped = [*after[:place], one, *after[place + 1 :]]
                        assert not keeps(swapped, policy.quotas)


def test_of_two_new_items_the_better_one_stands_first() -> None:
    made = [candidate(number, age=1 if number in (6, 8, 9) else 9) for number in range(10)]
    policy = replace(PLAIN, fresh=FreshRule("released", 3, 2))
    assert Scenario(made, policy, 5).ids() == ["i0", "i1", "i2", "i6", "i8"]
    # One of them is there already.
    assert Scenario(made, policy, 5, pinned=[made[9]]).ids() == ["i9", "i0", "i1", "i2", "i6"]


def test_an_item_that_gave_way_gives_its_quota_back() -> None:
    made = [candidate(0), candidate(1, brand="x"), candidate(2, age=1), candidate(3, brand="x")]
    policy = replace(
        PLAIN,
        quotas=(Quota("brand", 1),),
        fresh=FreshRule("released", 3, 1),
        explore=ExploreRule(1, 2),
    )
    lists = [Scenario(made, policy, 3).ids(seed) for seed in range(20)]
    assert {tuple(one) for one in lists} == {("i0", "i2", "i1"), ("i0", "i2", "i3")}


def test_scores_are_relative_to_the_best_item_that_is_not_pinned() -> None:
    # With i0 as the measure, 0.5 and 0.1 would count less than what i1 is like to i0.
    made = [
        candidate(number, vector=vector)._replace(score=score)
        for number, (vector, score) in enumerate([((1, 0), 10), ((4, 3), 0.5), ((0, 1), 0.1)])
    ]
    assert Scenario(made, PLAIN, 2, pinned=[made[0]], diversity=0.4).ids() == ["i0", "i1"]


def test_an_item_exactly_so_old_is_new_and_a_list_of_times_counts_by_its_newest() -> None:
    policy = Policy(name="home", version=1, fresh=FreshRule("released", 3, 1))
    older, edge = candidate(1, age=3.001), candidate(2, age=3)
    assert Scenario([candidate(0), older, edge], policy, 1).ids() == ["i2"]
    times = [from_us(NOW_US - 4 * DAY_US), from_us(NOW_US - 2 * DAY_US)]
    both = older._replace(attributes={"released": times})
    assert Scenario([candidate(0), both], policy, 1).ids() == ["i1"]
    # A year that is a number is no time, and what is not known is not new.
    year = older._replace(attributes={"released": 2026})
    assert Scenario([candidate(0), year, older._replace(attributes=None)], policy, 1).ids() == [
        "i0"
    ]


def test_items_without_attributes_are_in_no_quota() -> None:
    policy = Policy(name="home", version=1, quotas=(Quota("brand", 1),))
    bare = [Candidate(id=one, score=1.0) for one in IDS[:3]]
    assert Scenario(bare, policy, 9, NO_IDS).ids() == IDS[:3]
    twice = candidate(0, brand=["x", "x", None])
    assert Scenario([twice, candidate(1, brand="x")], policy, 9).ids() == ["i0"]

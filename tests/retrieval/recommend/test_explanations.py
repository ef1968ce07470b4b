"""Explanations: an absent item is explained by the rule that kept it out, and by no other."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from nearline.contract import Cause
from retrieval.recommend.policies import FreshRule, Policy, Quota
from tests.retrieval.recommend.scenarios import IDS, PLAIN, Scenario, candidate, keeps, scenarios

RULED = Policy(
    name="home",
    version=1,
    quotas=(Quota("brand", 1),),
    blocked=frozenset({"i2"}),
    fresh=FreshRule("released", 3, 1),
)
RULED_CANDIDATES = [
    candidate(0, vector=[1, 0]),
    candidate(1, brand="x", vector=[1, 0]),
    candidate(2),
    candidate(3),
    candidate(4),
    candidate(5, brand=["x", "y"]),
    candidate(6, vector=[0, 1]),
    candidate(7, age=1, vector=[0, 1]),
    candidate(8),
]


@pytest.mark.parametrize(
    ("item_id", "cause", "rank", "says"),
    [
        ("i0", Cause.LISTED, 1, "it is listed at place 1"),
        ("i7", Cause.LISTED, 8, "it is listed at place 3"),
        ("i2", Cause.BLOCKED, 3, f"policy {RULED.label} blocks it"),
        ("i3", Cause.SEEN, 4, "the user had it before"),
        ("i4", Cause.EXCLUDED, 5, "the request excludes it"),
        ("i5", Cause.QUOTA, 6, "allows 1 with brand 'x'"),
        ("i6", Cause.OUTRANKED, 7, "a newer item took its place"),
        ("i8", Cause.OUTRANKED, 9, "it ranks 9 of 9 candidates, and 3 are listed"),
        ("i9", Cause.OUTRANKED, 0, "it is not among the 9 candidates"),
    ],
)
def test_the_rule_that_kept_an_item_out_is_named(
    item_id: str, cause: Cause, rank: int, says: str
) -> None:
    scenario = Scenario(RULED_CANDIDATES, RULED, 3, frozenset({"i3"}), frozenset({"i4"}))
    assert scenario.ids() == ["i0", "i1", "i7"]
    outcome = scenario.arranged(why_not=item_id)
    assert outcome.places == scenario.arranged().places and scenario.arranged().why_not is None
    assert outcome.why_not is not None
    assert (outcome.why_not.id, outcome.why_not.cause, outcome.why_not.rank) == (
        item_id,
        cause,
        rank,
    )
    assert says in outcome.why_not.message


def test_diversity_is_the_cause_only_where_it_would_be_listed_without() -> None:
    made = [candidate(n, vector=v) for n, v in enumerate([(1, 0), (1, 0), (0, 1), (1, 0)])]
    scenario = Scenario(made, PLAIN, 2, diversity=0.5)
    assert scenario.ids() == ["i0", "i2"]
    causes = [scenario.arranged(why_not=one).why_not for one in IDS[:4]]
    assert [one.cause for one in causes if one] == [
        *(Cause.LISTED, Cause.DIVERSITY, Cause.LISTED, Cause.OUTRANKED)
    ]  # fmt: skip
    assert causes[1] and causes[1].message.endswith("took its place, at diversity 0.5")


@given(scenarios(), st.sampled_from(IDS))
def test_an_item_is_listed_or_a_true_cause_is_given(scenario: Scenario, asked: str) -> None:
    outcome = scenario.arranged(why_not=asked)
    assert outcome.places == scenario.arranged().places
    why = outcome.why_not
    assert why is not None
    listed = [one.candidate for one in outcome.places]
    assert (why.cause is Cause.LISTED) == (asked in [one.id for one in listed])
    ids = [one.id for one in scenario.candidates]
    assert why.rank == (ids.index(asked) + 1 if asked in ids else 0)
    sets = {Cause.SEEN: scenario.seen, Cause.EXCLUDED: scenario.excluded,
            Cause.BLOCKED: scenario.policy.blocked}  # fmt: skip
    assert any(asked in dropped for dropped in sets.values()) == (why.cause in sets)
    assert asked in sets.get(why.cause, {asked})
    policy = scenario.policy
    if policy.explore is None and policy.fresh is None and why.cause not in (*sets, Cause.LISTED):
        known = {one.id: one for one in [*scenario.candidates, *scenario.pinned]}
        beyond = asked in known and not keeps([*listed, known[asked]], policy.quotas)
        alike = asked in scenario._replace(diversity=0.0).ids()
        assert beyond if why.cause is Cause.QUOTA else len(listed) == scenario.n or not why.rank
        if why.cause is Cause.DIVERSITY:
            assert alike
        elif why.cause is Cause.OUTRANKED:
            assert not alike

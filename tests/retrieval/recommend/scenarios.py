"""Small scenarios of candidates and policies, and the lists that the rules make of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from nearline.times import DAY_US, from_us
from retrieval.recommend.policies import ExploreRule, FreshRule, Policy, Quota
from retrieval.recommend.rules import Candidate, RulesResult, apply_rules

NOW_US = 20_000 * DAY_US
IDS = [f"i{number}" for number in range(10)]
NO_IDS: frozenset[str] = frozenset()
PLAIN = Policy(name="home", version=1)
_values = st.none() | st.sampled_from("xyz") | st.lists(st.sampled_from("xyz"), max_size=3)
_few_ids = st.frozensets(st.sampled_from(IDS), max_size=3)


class Scenario(NamedTuple):
    """All that `apply_rules` is given, but the generator."""

    candidates: Sequence[Candidate]
    policy: Policy
    n: int
    seen: frozenset[str] = NO_IDS
    excluded: frozenset[str] = NO_IDS
    pinned: Sequence[Candidate] = ()
    diversity: float | None = None

    def allows(self, one: Candidate) -> bool:
        """Returns whether nothing bars a candidate from the list."""
        return one.id not in self.seen | self.excluded | self.policy.blocked

    def arranged(self, seed: int = 0, why_not: str = "") -> RulesResult:
        """Makes the list."""
        return apply_rules(
            self.candidates,
            self.policy,
            self.n,
            seen=self.seen,
            excluded=self.excluded,
            pinned=self.pinned,
            diversity=self.diversity,
            now_us=NOW_US,
            rng=np.random.default_rng(seed),
            why_not=why_not,
        )

    def ids(self, seed: int = 0) -> list[str]:
        """Makes the list, as ids."""
        return [placed.candidate.id for placed in self.arranged(seed).places]


def candidate(
    number: int,
    *,
    brand: object = None,
    tag: object = None,
    age: float | None = None,
    vector: Sequence[float] | None = None,
) -> Candidate:
    """Makes candidate i<number>, the better the lower. age: Days."""
    released = None if age is None else from_us(NOW_US - int(age * DAY_US))
    attributes = {"brand": brand, "tag": tag, "released": released}
    return Candidate(
        id=IDS[number],
        score=20.0 - number,
        attributes=attributes,  # type: ignore[arg-type]
        vector=None if vector is None else np.array(vector, np.float32),
        reasons=(f"because:{number}",),
    )


def is_new(one: Candidate, days: int) -> bool:
    """Returns whether a candidate of `candidate` is at most so old."""
    released = (one.attributes or {})["released"]
    return released is not None and released >= from_us(NOW_US - days * DAY_US)  # type: ignore[operator]


def values(one: Candidate, attribute: str) -> set[object]:
    """Returns the different values that a candidate has of an attribute."""
    value = (one.attributes or {})[attribute]
    elements: list[object] = value if isinstance(value, list) else [value]
    return {element for element in elements if element is not None}


def keeps(listed: Sequence[Candidate], quotas: Sequence[Quota]) -> bool:
    """Returns whether a list keeps to quotas, by counting."""
    return all(
        count <= quota.most
        for quota in quotas
        for count in Counter(v for one in listed for v in values(one, quota.attribute)).values()
    )


@st.composite
def scenarios(
    draw: st.DrawFn, *, diversity: bool = True, fresh: bool = True, explore: bool = True
) -> Scenario:
    """Draws a scenario; False: without that rule."""
    vectors = st.none() | st.lists(st.integers(-2, 2), min_size=2, max_size=2)
    made = [
        candidate(
            number,
            brand=draw(_values),
            tag=draw(_values),
            age=draw(st.none() | st.integers(0, 4)),
            vector=draw(vectors),
        )
        for number in range(len(IDS))
    ]
    pinned_ids = draw(st.lists(st.sampled_from(IDS), max_size=3, unique=True))
    quotas = draw(st.dictionaries(st.sampled_from(["brand", "tag"]), st.integers(1, 3)))
    size = draw(st.integers(0, len(IDS)))
    places = draw(st.integers(1, 3))
    policy = Policy(
        name="home",
        version=1,
        quotas=tuple(Quota(*one) for one in sorted(quotas.items())),
        pinned=tuple(pinned_ids),
        blocked=draw(_few_ids) - set(pinned_ids),
        diversity=draw(st.sampled_from([0.0, 0.5, 1.0])) if diversity else 0.0,
        fresh=draw(st.none() | st.builds(FreshRule, st.just("released"), st.integers(1, 4),
                                         st.integers(1, 4))) if fresh else None,
        explore=draw(st.none() | st.builds(ExploreRule, st.just(places), st.integers(places, 6)))
        if explore else None,
    )  # fmt: skip
    return Scenario(
        candidates=made[:size],
        policy=policy,
        n=draw(st.integers(0, 12)),
        seen=draw(_few_ids),
        excluded=draw(_few_ids),
        pinned=[made[IDS.index(one)] for one in pinned_ids],
        diversity=draw(st.none() | st.just(0.3)) if diversity else None,
    )

"""From candidates to a list: the rules of a surface, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np

from nearline.contract import WhyNot
from nearline.times import DAY_US, to_us
from retrieval.recommend.explanations import explain_absence
from retrieval.recommend.policies import FreshRule, Policy
from retrieval.recommend.selection import Candidate, Selection

__all__ = ["Candidate", "Placement", "RulesResult", "apply_rules"]

_PINNED = "pinned"
_EXPLORED = "explored"


class Placement(NamedTuple):
    """A candidate on its place.

    reasons: The policy's ("pinned", "explored") before the candidate's. propensity: Probability
    that it stood on an explored place, for one that does; 1 for others; None: nothing is explored.
    """

    candidate: Candidate
    reasons: tuple[str, ...]
    propensity: float | None


class RulesResult(NamedTuple):
    """A list, best first, and why the item that was asked about is not in it."""

    places: list[Placement]
    why_not: WhyNot | None


def apply_rules(
    candidates: Sequence[Candidate],
    policy: Policy,
    n: int,
    *,
    seen: frozenset[str],
    excluded: frozenset[str],
    pinned: Sequence[Candidate],
    diversity: float | None,
    now_us: int,
    rng: np.random.Generator,
    why_not: str = "",
) -> RulesResult:
    """Makes a list of at most n candidates by the rules of a surface.

    What is seen, excluded or blocked is dropped, pinned or not. Pinned items come first. Others
    follow in their order or, with diversity, by likeness to those before them. Then new items take
    the last of their places, where the policy asks for more. Last come the explored places, e of
    them: as many as the policy's, or those that pinned items leave. They are drawn from the best p
    candidates that are left, every set of e with the same probability, in random order, so that the
    propensity of each is min(e, p) / p. A quota holds for the whole list: what would exceed one is
    left out, pinned or not, and the p are such that any e of them keep to it.

    Args:
        candidates: Best first, as many as are to be looked at, no id twice.
        policy: Of the surface.
        n: Items wanted, >= 0.
        seen: Ids; see `seen_items`.
        excluded: Ids.
        pinned: Those of the policy that exist and match the filter, in the policy's order.
        diversity: 0..1; None: the policy's.
        now_us: Microseconds since 1970.
        rng: Draws explored places; not used where the policy does not explore.
        why_not: Id to be explained; an item that does not exist or does not match is for the
            caller to tell, here it is one that is no candidate.
    """
    weight = policy.diversity if diversity is None else diversity
    left = _allowed(candidates, seen, excluded, policy.blocked)
    first = _allowed(pinned, seen, excluded, policy.blocked)
    chosen, fixed, to_draw = _select_fixed(left, first, policy, n, weight, now_us)
    propensity = None if policy.explore is None else 1.0
    places = [
        Placement(one, (_PINNED, *one.reasons) if place < fixed else one.reasons, propensity)
        for place, one in enumerate(chosen.candidates)
    ]
    if policy.explore is not None and to_draw:
        pool = chosen.open_to(left, to_draw, policy.explore.pool)
        drawn = rng.choice(len(pool), min(to_draw, len(pool)), replace=False)
        for one in (pool[number] for number in drawn):
            places.append(Placement(one, (_EXPLORED, *one.reasons), len(drawn) / len(pool)))
    if not why_not:
        return RulesResult(places, None)
    alike = _select_fixed(left, first, policy, n, 0.0, now_us).chosen if weight > 0 else chosen
    return RulesResult(
        places,
        explain_absence(
            why_not,
            [one.id for one in candidates],
            [one.candidate.id for one in places],
            policy,
            chosen,
            alike,
            seen=seen,
            excluded=excluded,
            diversity=weight,
        ),
    )


class _FixedPart(NamedTuple):
    """What is chosen without chance, how many of it are pinned, and places left to be drawn."""

    chosen: Selection
    fixed: int
    to_draw: int


def _select_fixed(
    left: Sequence[Candidate],
    pinned: Sequence[Candidate],
    policy: Policy,
    n: int,
    diversity: float,
    now_us: int,
) -> _FixedPart:
    chosen = Selection(policy.quotas)
    chosen.take_first(pinned, n)
    fixed = len(chosen.candidates)
    to_draw = 0 if policy.explore is None else min(policy.explore.places, n - fixed)
    if diversity > 0:
        chosen.take_unlike(left, n - to_draw, diversity)
    else:
        chosen.take_first(left, n - to_draw)
    fresh = policy.fresh
    if fresh is not None:
        chosen.exchange(left, lambda one: _is_new(one, fresh, now_us), fresh.places, fixed)
    return _FixedPart(chosen, fixed, to_draw)


def _allowed(
    candidates: Sequence[Candidate],
    seen: frozenset[str],
    excluded: frozenset[str],
    blocked: frozenset[str],
) -> list[Candidate]:
    return [
        one
        for one in candidates
        if (key := one.id) not in seen and key not in excluded and key not in blocked
    ]


def _is_new(candidate: Candidate, fresh: FreshRule, now_us: int) -> bool:
    value = (candidate.attributes or {}).get(fresh.attribute)
    times = value if isinstance(value, list | tuple) else (value,)
    since_us = now_us - fresh.days * DAY_US
    return any(isinstance(time, datetime) and to_us(time) >= since_us for time in times)

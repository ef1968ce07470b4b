"""Applies the rules of a surface to candidates, in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nearline.contract import WhyNot
from retrieval.protocols.compute_threads import Stopped
from retrieval.recommend.explanations import explain_absence
from retrieval.recommend.policies import Policy
from retrieval.recommend.selection import Candidate, Selection

__all__ = ["Candidate", "Placement", "RulesResult", "apply_rules"]

_PINNED = "pinned"
_EXPLORED = "explored"


class Placement(NamedTuple):
    """A listed candidate.

    reasons: The policy's ("pinned", "explored"), then the candidate's. propensity: Probability that
    an explored item was drawn; 1 for other items; None if the policy does not explore.
    """

    candidate: Candidate
    reasons: tuple[str, ...]
    propensity: float | None


class RulesResult(NamedTuple):
    """A list, best first, and why an item is absent from it, if that was requested."""

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
    stopped: Stopped = lambda: False,
) -> RulesResult:
    """Returns a list of at most n candidates by the rules of a surface.

    Items that are seen, excluded or blocked are dropped, pinned or not. Pinned items come first.
    The others follow in their order or, with diversity, by their similarity to those before. Then
    new items replace the last of them, until there are as many as the policy needs. The e explored
    places come last: as many as the policy has, or as pinned items leave. They are drawn from the
    best p remaining candidates. Every set of e is equally probable, in random order, so that the
    propensity of each is min(e, p) / p. A quota holds for the whole list: an item that would exceed
    one is left out, pinned or not, and the p are chosen such that any e of them keep the quotas.

    Args:
        candidates: Best first, as many as the rules may choose from; ids are unique.
        policy: The policy of the surface.
        n: Items needed, >= 0.
        seen: Ids; see `seen_items`.
        excluded: Ids.
        pinned: Pinned items that exist and match the filter, in the policy's order.
        diversity: 0..1; None uses the policy's.
        now_us: Microseconds since 1970.
        rng: Draws explored items; unused if the policy does not explore.
        why_not: Id of an item whose absence is explained; empty: none. Here, an item that does not
            exist or match the filter is not among the candidates; the caller knows more.
        stopped: Returns whether the list is no longer needed; see `diverse_order`.
    """
    weight = policy.diversity if diversity is None else diversity
    left = _allowed(candidates, seen, excluded, policy.blocked)
    first = _allowed(pinned, seen, excluded, policy.blocked)
    selection, fixed, to_draw = _select_fixed(left, first, policy, n, weight, now_us, stopped)
    propensity = None if policy.explore is None else 1.0
    places = [
        Placement(one, (_PINNED, *one.reasons) if place < fixed else one.reasons, propensity)
        for place, one in enumerate(selection.candidates)
    ]
    if policy.explore is not None and to_draw:
        pool = selection.draw_pool(left, to_draw, policy.explore.pool)
        drawn = rng.choice(len(pool), min(to_draw, len(pool)), replace=False)
        for one in (pool[number] for number in drawn):
            places.append(Placement(one, (_EXPLORED, *one.reasons), len(drawn) / len(pool)))
    if not why_not:
        return RulesResult(places, None)
    undiversified = selection
    if weight > 0:
        undiversified = _select_fixed(left, first, policy, n, 0.0, now_us).selection
    return RulesResult(
        places,
        explain_absence(
            why_not,
            [one.id for one in candidates],
            [one.candidate.id for one in places],
            policy,
            selection,
            undiversified,
            seen=seen,
            excluded=excluded,
            diversity=weight,
        ),
    )


class _FixedPart(NamedTuple):
    """The items that are not drawn at random.

    fixed: Number of pinned items. to_draw: Places left to be drawn.
    """

    selection: Selection
    fixed: int
    to_draw: int


def _select_fixed(
    left: Sequence[Candidate],
    pinned: Sequence[Candidate],
    policy: Policy,
    n: int,
    diversity: float,
    now_us: int,
    stopped: Stopped = lambda: False,
) -> _FixedPart:
    selection = Selection(policy.quotas)
    selection.take_first(pinned, n)
    fixed = len(selection.candidates)
    to_draw = 0 if policy.explore is None else min(policy.explore.places, n - fixed)
    if diversity > 0:
        selection.take_diverse(left, n - to_draw, diversity, stopped)
    else:
        selection.take_first(left, n - to_draw)
    fresh = policy.fresh
    if fresh is not None:
        selection.exchange(
            left, lambda one: fresh.is_new(one.attributes, now_us), fresh.places, fixed
        )
    return _FixedPart(selection, fixed, to_draw)


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

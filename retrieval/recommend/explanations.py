"""Explanations: why an item is in a list, and why an item is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from nearline.contract import Cause, WhyNot
from nearline.filters import Filter
from retrieval.behaviour.blend import Generator
from retrieval.behaviour.factors import FactorGenerator
from retrieval.behaviour.history import History
from retrieval.behaviour.item_lists import ListGenerator
from retrieval.behaviour.model import BehaviourModel
from retrieval.recommend.candidate_pool import CandidateQuery
from retrieval.recommend.policies import NO_PAYLOAD, Policy
from retrieval.recommend.selection import Selection
from retrieval.search import item_lookup

MAX_REASONS = 3
# Reason of an item that the discount for popularity moved up.
DEBIASED = "debiased"


def history_reasons(
    model: BehaviourModel, number: int, history: History, generators: Sequence[Generator]
) -> tuple[str, ...]:
    """Returns the reasons for an item, strongest first; see Recommendation in the protocol.

    An item of the history counts by its share of the score that each list generator computes.

    Args:
        number: Number of the recommended item.
        history: The history that it was scored with.
        generators: The generators that scored it.
    """
    shares: dict[int, float] = {}
    for generator in generators:
        if isinstance(generator, ListGenerator):
            for other, share in _shares(generator, number, history):
                shares[other] = shares.get(other, 0.0) + share
    best = sorted(shares, key=lambda other: (-shares[other], other))[:MAX_REASONS]
    reasons = [f"because:{model.ids[other]}" for other in best]
    if number in history.items:
        reasons.insert(0, "again")
    if not model.trained[number]:
        reasons.append("new")
    elif not reasons:
        by_taste = len(history.items) and any(isinstance(g, FactorGenerator) for g in generators)
        reasons.append("taste" if by_taste else "popular")
    return tuple(reasons)


def explain_absence(
    item_id: str,
    candidates: Sequence[str],
    listed: Sequence[str],
    policy: Policy,
    selection: Selection,
    undiversified: Selection,
    *,
    seen: frozenset[str],
    excluded: frozenset[str],
    diversity: float,
) -> WhyNot:
    """Returns the first rule that kept an item from a list.

    Args:
        candidates: Ids before any rule, best first.
        listed: Ids of the list.
        policy: The policy of the surface.
        selection: What the rules selected.
        undiversified: What they would have selected without diversity.
        seen, excluded: Ids that were dropped.
        diversity: Diversity of the list, 0..1.
    """
    rank = candidates.index(item_id) + 1 if item_id in candidates else 0
    cause = Cause.OUTRANKED
    if item_id in listed:
        cause = Cause.LISTED
        message = f"it is listed at place {listed.index(item_id) + 1}"
    elif item_id in excluded:
        cause = Cause.EXCLUDED
        message = "the request excludes it, or names it as an example"
    elif item_id in policy.blocked:
        cause = Cause.BLOCKED
        message = f"policy {policy.label} blocks it"
    elif item_id in seen:
        cause = Cause.SEEN
        message = f"the user had it before, and policy {policy.label} hides such items"
    elif item_id in selection.displaced:
        message = f"a newer item took its place: policy {policy.label} reserves places for those"
    elif item_id in selection.refused:
        cause = Cause.QUOTA
        name, value = min(selection.refused[item_id], key=str)
        most = dict(policy.quotas)[name]
        message = (
            f"policy {policy.label} allows {most} with {name} {value!r}, and better ones came first"
        )
    elif item_id in undiversified.ids:
        cause = Cause.DIVERSITY
        message = f"items less similar to those before took its place, at diversity {diversity:g}"
    elif rank:
        message = f"it ranks {rank} of {len(candidates)} candidates, and {len(listed)} are listed"
    else:
        message = f"it is not among the {len(candidates)} candidates"
    return WhyNot(id=item_id, cause=cause, rank=rank, message=message)


async def complete_absence(
    why: WhyNot,
    query: CandidateQuery,
    requested: Filter | None,
    policy: Policy,
    rank_of: Callable[[str], int],
) -> WhyNot:
    """Completes the finding of the rules with facts that only shards and ranking know.

    These facts are whether the item exists, whether it matches the filter, and its rank.

    Args:
        why: The finding of the rules.
        query: Which items match.
        requested: The filter of the request.
        policy: The policy of the surface.
        rank_of: Returns the rank of an item before any rule, 0 if it has none.
    Raises: as `CandidatePool.read`.
    """
    served, _, filter, context = query
    settled = why.cause is not Cause.OUTRANKED or bool(why.rank)
    if not settled or context.visible is not None:
        existing = await item_lookup.fetch_items(served, [why.id], NO_PAYLOAD, context)
        if why.id not in existing.items:
            message = f"collection {served.name!r} has no such item, or no longer has it"
            return WhyNot(id=why.id, cause=Cause.NO_SUCH_ITEM, rank=0, message=message)
    if settled:
        return replace(why, rank=why.rank or rank_of(why.id))
    if filter is not None:
        matching = await item_lookup.fetch_items(served, [why.id], NO_PAYLOAD, context, filter)
        if why.id not in matching.items:
            message = _describe_mismatch(requested, policy)
            return WhyNot(id=why.id, cause=Cause.FILTERED, rank=0, message=message)
    rank = rank_of(why.id)
    message = f"other items rank before it: it ranks {rank}" if rank else why.message
    return replace(why, rank=rank, message=message)


def add_discount(why: WhyNot, gained: int) -> WhyNot:
    """Adds to the finding that the discount for popularity moved an outranked item down.

    Args:
        gained: Places that the discount moved the item up; negative: down.
    """
    if why.cause is not Cause.OUTRANKED or gained >= 0:
        return why
    places = "1 place" if gained == -1 else f"{-gained} places"
    message = f"{why.message}; popularity_debias moved it down by {places}, below rarer items"
    return replace(why, message=message)


def _describe_mismatch(requested: Filter | None, policy: Policy) -> str:
    """Returns which filter an item does not match: the request's, the policy's, or both."""
    if policy.only is None:
        return "it does not match the filter of the request"
    if requested is None:
        return f"it does not match the filter of policy {policy.label} (only)"
    return f"it does not match the filters of the request and of policy {policy.label} (only)"


def _shares(generator: ListGenerator, number: int, history: History) -> Iterator[tuple[int, float]]:
    newest = history.items[: generator.newest]
    weights = generator.recency.factors(history.time_us[: generator.newest])
    weights = weights * history.weight[: generator.newest]
    total = 0.0
    shares = []
    for item, weight in zip(newest.tolist(), weights.tolist(), strict=True):
        others, scores = generator.lists.of(item)
        at = np.flatnonzero(others == number)
        if len(at) and item != number:
            share = weight * float(scores[at[0]])
            total += share
            shares.append((item, share))
    # Generators score in different units, so each has one vote to distribute.
    return ((item, share / total) for item, share in shares)

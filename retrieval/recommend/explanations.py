"""Explanations: why an item is in a list, and why an item is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nearline.contract import Cause, WhyNot
from nearline.filters import Filter
from retrieval.recommend.candidate_pool import CandidateQuery
from retrieval.recommend.policies import NO_PAYLOAD, Policy
from retrieval.recommend.ranking import ItemRanking, position_of
from retrieval.recommend.selection import Selection
from retrieval.search import item_lookup
from retrieval.search.collection import ServedCollection

# Reason of an item that the discount for popularity moved up.
DEBIASED = "debiased"
# Items that a line of a story names.
_NAMED = 3
_STORIES = {
    "items": "what goes with the items of the request",
    "history": "what suits the history of the user",
    "popular": "what most users had",
    "surface": "what most users had, as the surface asks for",
    "content": "items like those that are known",
    "unordered": "new items that differ, as lists know no interactions yet",
}


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


def tell_story(source: str, effects: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """Returns where the candidates of a source come from, then what each rule did to which ids."""
    lines = [f"candidates: {_STORIES[source]}"]
    for rule, ids in effects.items():
        if ids:
            more = ", …" if len(ids) > _NAMED else ""
            lines.append(f"{rule}: {len(ids)} ({', '.join(ids[:_NAMED])}{more})")
    return lines


def unused_rules(policy: Policy, served: ServedCollection) -> Sequence[str]:
    """Returns lines about rules of a policy that the items of a collection give no meaning."""
    fresh = policy.fresh
    kind = None if fresh is None else served.attribute_kinds.get(fresh.attribute)
    if fresh is None or kind == "time":
        return ()
    found = f"is of kind {kind}" if kind else "does not exist"
    return (f"fresh does nothing: attribute {fresh.attribute!r} {found}; it must hold times",)


async def complete_absence(
    why: WhyNot,
    query: CandidateQuery,
    requested: Filter | None,
    policy: Policy,
    ranking: ItemRanking | None,
) -> WhyNot:
    """Completes the finding of the rules with facts that only shards and ranking know.

    These facts are whether the item exists, whether it matches the filter, and its rank.

    Args:
        why: The finding of the rules.
        query: Which items match.
        requested: The filter of the request.
        policy: The policy of the surface.
        ranking: Items before any filter or rule, which is consumed; None if there is none.
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
        return replace(why, rank=why.rank or await _rank_of(ranking, why.id))
    if filter is not None:
        matching = await item_lookup.fetch_items(served, [why.id], NO_PAYLOAD, context, filter)
        if why.id not in matching.items:
            message = _describe_mismatch(requested, policy)
            return WhyNot(id=why.id, cause=Cause.FILTERED, rank=0, message=message)
    rank = await _rank_of(ranking, why.id)
    message = f"it ranks {rank}, below the end of the list" if rank else why.message
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


async def _rank_of(ranking: ItemRanking | None, item_id: str) -> int:
    return 0 if ranking is None else await position_of(ranking, item_id)


def _describe_mismatch(requested: Filter | None, policy: Policy) -> str:
    """Returns which filter an item does not match: the request's, the policy's, or both."""
    if policy.only is None:
        return "it does not match the filter of the request"
    if requested is None:
        return f"it does not match the filter of policy {policy.label} (only)"
    return f"it does not match the filters of the request and of policy {policy.label} (only)"

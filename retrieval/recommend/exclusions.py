"""Why an item is not in a list."""

from __future__ import annotations

from collections.abc import Sequence

from nearline.contract import Cause, WhyNot
from retrieval.recommend.policies import Policy
from retrieval.recommend.selection import Selection


def explain_absence(
    item_id: str,
    candidates: Sequence[str],
    listed: Sequence[str],
    policy: Policy,
    chosen: Selection,
    alike: Selection,
    *,
    seen: frozenset[str],
    excluded: frozenset[str],
    diversity: float,
) -> WhyNot:
    """Says which rule kept an item from a list, the first one that did.

    Args:
        item_id: The item.
        candidates: Ids before any rule, best first.
        listed: Ids of the list.
        policy: Of the surface.
        chosen: What the rules chose.
        alike: What they would have chosen without diversity.
        seen, excluded: Ids that were dropped.
        diversity: That the list was made with, 0..1.
    """
    rank = candidates.index(item_id) + 1 if item_id in candidates else 0
    cause = Cause.OUTRANKED
    if item_id in listed:
        cause = Cause.LISTED
        message = f"it stands at place {listed.index(item_id) + 1}"
    elif item_id in excluded:
        cause = Cause.EXCLUDED
        message = "the request excludes it, or has it as an example"
    elif item_id in policy.blocked:
        cause = Cause.BLOCKED
        message = f"policy {policy.label} blocks it"
    elif item_id in seen:
        cause = Cause.SEEN
        message = f"the user had it before, and policy {policy.label} does not show that again"
    elif item_id in chosen.displaced:
        message = f"a newer item took its place: policy {policy.label} asks for new ones"
    elif item_id in chosen.refused:
        cause = Cause.QUOTA
        name, value = min(chosen.refused[item_id], key=str)
        most = dict(policy.quotas)[name]
        message = f"policy {policy.label} allows {most} with {name} {value!r}, others came before"
    elif item_id in alike.ids:
        cause = Cause.DIVERSITY
        message = f"items less like those before took its place, at diversity {diversity:g}"
    elif rank:
        message = f"it is number {rank} of {len(candidates)} candidates, the list has {len(listed)}"
    else:
        message = f"it is none of the {len(candidates)} candidates"
    return WhyNot(id=item_id, cause=cause, rank=rank, message=message)

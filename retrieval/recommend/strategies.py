"""What lists are made from: by whom they are for, or as the policy of their surface says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nearline.errors import InvalidRequest
from nearline.filters import Filter
from retrieval.behaviour.history import History
from retrieval.behaviour.model import BehaviourModel
from retrieval.behaviour.repurchase import RepurchaseGenerator
from retrieval.recommend.policies import Origin, Policy
from retrieval.recommend.ranking import (
    HISTORY,
    ITEMS,
    POPULAR,
    ItemRanking,
    rank_items,
    rank_non_personalized,
    rank_positive,
)
from retrieval.recommend.reasons import history_reasons

# What made a list that its surface asks for, whoever it is for: nothing else stands in for it.
SURFACE: Final = "surface"
_ASKED = frozenset({Origin.POPULAR, Origin.TRENDING})
_FILTER = "options.filter"
# Names a list that goes with an item, in the cache.
_ITEM = "item:"


def context_items(policy: Policy, items: Sequence[str]) -> Sequence[str]:
    """Returns those of the items given that a surface looks at: all, or none."""
    return items if policy.origin is Origin.AUTO else ()


def is_shared_list(policy: Policy, items: Sequence[str], *, is_known: bool) -> bool:
    """Returns whether a list is the same for everybody, up to what each of them had.

    Args:
        items: That the list is to go with. is_known: Whether anything is known of the user.
    """
    if policy.origin in _ASKED:
        return True
    return len(items) == 1 or (not items and not is_known)


def uses_behaviour_only(policy: Policy) -> bool:
    """Returns whether behaviour alone speaks, where a snapshot has learned from any."""
    return policy.origin is not Origin.AUTO


def describe_mismatch(asked: Filter | None, policy: Policy) -> str:
    """Says which filter an item does not match: that of the request, of the surface, or both's."""
    if policy.only is None:
        return "it does not match the filter of the request"
    if asked is None:
        return f"it does not match what policy {policy.label} asks of every item (only)"
    return f"it does not match the filter of the request and that of policy {policy.label} (only)"


def policy_filter_error(
    error: InvalidRequest, asked: Filter | None, policy: Policy
) -> InvalidRequest:
    """Returns the refusal of a list: one of a filter says whose it may be."""
    if policy.only is None or not error.field.startswith(_FILTER):
        return error
    if asked is None:
        message = f"policy {policy.label} (only): {error.message}; correct it in the policy file"
        return InvalidRequest(message, field="surface")
    message = f"{error.message} (policy {policy.label} has a filter, too)"
    return InvalidRequest(message, field=error.field)


def shared_list_name(policy: Policy, item: str) -> str:
    """Returns the name of a list that is the same for everybody: item:ID, or what it is made from.

    Args:
        item: That it goes with; empty: none.
    """
    if policy.origin is not Origin.AUTO:
        return str(policy.origin.value)
    return f"{_ITEM}{item}" if item else POPULAR


def item_from_list_name(name: str) -> str:
    """Returns the item that a list of this name goes with; empty: none."""
    return name.removeprefix(_ITEM) if name.startswith(_ITEM) else ""


def shared_list_source(policy: Policy, item: str) -> str:
    """Returns what made a list that is the same for everybody: items, popular or surface."""
    if policy.origin in _ASKED:
        return SURFACE
    return ITEMS if item else POPULAR


def rank_for_surface(
    learned: BehaviourModel,
    policy: Policy,
    given: History,
    history: History,
    *,
    allowed: NDArray[np.bool_],
    first: int,
    now_us: int,
) -> ItemRanking:
    """Ranks items for a surface.

    Args:
        given: Items to go with; looked at where the surface looks at such. history: What the user
            had; empty: nothing is known.
        allowed: (items,) bool. first: Items in the first block of each kind.
        now_us: Microseconds since 1970: what is due by then.
    """
    match policy.origin:
        case Origin.AUTO:
            repeats = policy.seen.repeat
            return rank_items(
                learned, given, history, repeats=repeats, allowed=allowed, first=first
            )
        case Origin.BUY_AGAIN if len(history.items):
            scores = RepurchaseGenerator(learned.repeat_days, now_us).scores(history)
            return ItemRanking(HISTORY, rank_positive(scores, allowed=allowed, first=first))
        case Origin.BUY_AGAIN | Origin.POPULAR | Origin.TRENDING:
            of_items = _scores(learned, policy.origin)
            blocks = rank_non_personalized(learned, of_items, allowed=allowed, first=first)
            return ItemRanking(shared_list_source(policy, ""), blocks)


def surface_reasons(
    learned: BehaviourModel,
    policy: Policy,
    number: int,
    given: History,
    history: History,
    now_us: int,
) -> tuple[str, ...]:
    """Returns the reasons for an item, strongest first; see Recommendation in retrieval.proto."""
    if policy.origin is Origin.AUTO:
        if len(given.items):
            return history_reasons(learned, number, given, [learned.similar])
        generators = learned.generators(repeats=policy.seen.repeat)
        return history_reasons(learned, number, history, generators)
    if policy.origin is Origin.BUY_AGAIN and number in history.items:
        due = RepurchaseGenerator(learned.repeat_days, now_us).is_due(history, number)
        return ("again", "due") if due else ("again",)
    if not learned.trained[number]:
        return ("new",)
    trends = policy.origin is Origin.TRENDING and learned.trending[number] > 0
    return ("trending",) if trends else ("popular",)


def _scores(learned: BehaviourModel, origin: Origin) -> NDArray[np.float32]:
    """Returns what is the same for everybody: (items,) float32 >= 0."""
    if origin is Origin.TRENDING:
        return learned.trending
    if origin is Origin.BUY_AGAIN and learned.repeat_rate.any():
        # What many have, and have again.
        return learned.popularity * learned.repeat_rate
    return learned.popularity

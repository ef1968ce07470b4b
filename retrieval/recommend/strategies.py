"""Strategies: where the candidates of a surface come from, one class for each policy origin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.behaviour.model import BehaviourModel
from retrieval.behaviour.popularity import RepurchaseGenerator
from retrieval.recommend.explanations import history_reasons
from retrieval.recommend.policies import Origin, Policy
from retrieval.recommend.ranking import (
    HISTORY,
    ITEMS,
    POPULAR,
    ItemRanking,
    discount_of,
    rank_items,
    rank_non_personalized,
    rank_positive,
)
from retrieval.recommend.user_profile import UserProfile

# Source of a list whose surface is non-personalized by design: not a fallback for a better list.
SURFACE: Final = "surface"
_ITEM = "item:"
Mask: TypeAlias = NDArray[np.bool_]
Reasons: TypeAlias = tuple[str, ...]


class RankingContext(NamedTuple):
    """The user, items and time that a list is ranked for.

    item_ids: Items that the list goes with; empty if there are none or the strategy ignores them.
    repeats: Whether items that the user had may be listed again. now_us: Microseconds since 1970.
    debias: 0..1, discount for popularity; None uses the snapshot's.
    """

    item_ids: Sequence[str]
    profile: UserProfile
    repeats: bool
    now_us: int
    debias: float | None = None


class Strategy(Protocol):
    """A source of candidates that ranks the items of a behaviour model.

    To add one, write a class with these members, add its name to `policies.Origin`, and register it
    in `_STRATEGIES` below. Describe it in docs/guides/surfaces.md. A source that needs no behaviour
    model belongs into `pool_filler.fill_pool`; a model that is blended with others is a generator,
    see `retrieval/behaviour`.

    uses_items: Whether the items of a request influence the list.
    """

    uses_items: bool

    def is_shared(self, item_ids: Sequence[str], *, is_known: bool) -> bool:
        """Returns whether everyone gets the same list, apart from the items that each user had.

        Args:
            item_ids: Items that the list goes with.
            is_known: Whether the user has a history.
        """
        ...

    def list_name(self, item_id: str) -> str:
        """Returns the cache name of an item's shared list; "" names the list without an item."""
        ...

    def shared_source(self, item_id: str) -> str:
        """Returns the source that is reported for a shared list: ITEMS, POPULAR or SURFACE."""
        ...

    def needs_content(self, model: BehaviourModel, context: RankingContext) -> bool:
        """Returns whether the model cannot rank for the context, so that vectors have to."""
        ...

    def debias(self, model: BehaviourModel, context: RankingContext) -> float:
        """Returns how much `rank` discounts popularity, 0..1."""
        ...

    def rank(
        self, model: BehaviourModel, context: RankingContext, allowed: Mask, first: int
    ) -> ItemRanking:
        """Ranks the items of a snapshot.

        Args:
            allowed: (items,) bool.
            first: Items in the first block of each kind.
        """
        ...

    def reasons(self, model: BehaviourModel, context: RankingContext, number: int) -> Reasons:
        """Returns the reasons for an item, strongest first; see Recommendation in the protocol."""
        ...


def strategy_of(policy: Policy) -> Strategy:
    """Returns the strategy of a policy."""
    return _STRATEGIES[policy.origin]


def item_of_list(name: str) -> str:
    """Returns the item that a shared list of this name goes with; empty if there is none."""
    return name.removeprefix(_ITEM) if name.startswith(_ITEM) else ""


class AutoStrategy:
    """Lists what goes with the request's items, else what suits the user, else popular items."""

    uses_items = True

    def is_shared(self, item_ids: Sequence[str], *, is_known: bool) -> bool:
        """Returns whether the list depends on one item, or on nothing at all."""
        return len(item_ids) == 1 or not (item_ids or is_known)

    def list_name(self, item_id: str) -> str:
        """Returns item:ID, or the name of the popular list."""
        return f"{_ITEM}{item_id}" if item_id else POPULAR

    def shared_source(self, item_id: str) -> str:
        """Returns ITEMS, or POPULAR without an item."""
        return ITEMS if item_id else POPULAR

    def needs_content(self, model: BehaviourModel, context: RankingContext) -> bool:
        """Returns whether no item was trained, nor, without items, any of the user's history."""
        if context.item_ids:
            return not any(map(model.is_trained, context.item_ids))
        return context.profile.is_known and not len(context.profile.history.items)

    def debias(self, model: BehaviourModel, context: RankingContext) -> float:
        """Returns the discount of the context, else the snapshot's; 0 for popular items."""
        return discount_of(
            model,
            model.history_of_items(context.item_ids),
            context.profile.history,
            repeats=context.repeats,
            debias=context.debias,
        )

    def rank(
        self, model: BehaviourModel, context: RankingContext, allowed: Mask, first: int
    ) -> ItemRanking:
        """Ranks by the items, else by the history, else by popularity; see `rank_items`."""
        return rank_items(
            model,
            model.history_of_items(context.item_ids),
            context.profile.history,
            repeats=context.repeats,
            allowed=allowed,
            first=first,
            debias=context.debias,
        )

    def reasons(self, model: BehaviourModel, context: RankingContext, number: int) -> Reasons:
        """Returns the items, or else the events of the history, that speak for an item."""
        given = model.history_of_items(context.item_ids)
        if len(given.items):
            return history_reasons(model, number, given, [model.similar])
        generators = model.generators(repeats=context.repeats)
        return history_reasons(model, number, context.profile.history, generators)


class PopularStrategy:
    """Lists the most popular items, the same for everyone."""

    uses_items = False
    name = Origin.POPULAR.value
    source = SURFACE

    def is_shared(self, item_ids: Sequence[str], *, is_known: bool) -> bool:
        """Returns True: every list is shared."""
        return True

    def list_name(self, item_id: str) -> str:
        """Returns the name of the strategy."""
        return self.name

    def shared_source(self, item_id: str) -> str:
        """Returns the source of the non-personalized list."""
        return self.source

    def needs_content(self, model: BehaviourModel, context: RankingContext) -> bool:
        """Returns False: item statistics are enough."""
        return False

    def debias(self, model: BehaviourModel, context: RankingContext) -> float:
        """Returns 0: the list is about popularity, or about items that the user had."""
        return 0.0

    def rank(
        self, model: BehaviourModel, context: RankingContext, allowed: Mask, first: int
    ) -> ItemRanking:
        """Ranks by the item statistic of the strategy; the remaining items follow by counts."""
        scores = self.item_scores(model)
        blocks = rank_non_personalized(model, scores, allowed=allowed, first=first)
        return ItemRanking(self.source, blocks)

    def item_scores(self, model: BehaviourModel) -> NDArray[np.float32]:
        """Returns the score of each item: (items,) float32 >= 0."""
        return model.popularity

    def reasons(self, model: BehaviourModel, context: RankingContext, number: int) -> Reasons:
        """Returns "popular", or "new" for an item without interactions."""
        return ("popular",) if model.trained[number] else ("new",)


class TrendingStrategy(PopularStrategy):
    """Lists the items with the most recent interactions, the same for everyone."""

    name = Origin.TRENDING.value

    def item_scores(self, model: BehaviourModel) -> NDArray[np.float32]:
        """Returns popularity that decays within days."""
        return model.trending

    def reasons(self, model: BehaviourModel, context: RankingContext, number: int) -> Reasons:
        """Returns "trending" for items that trend."""
        if model.trained[number] and model.trending[number] > 0:
            return ("trending",)
        return super().reasons(model, context, number)


class BuyAgainStrategy(PopularStrategy):
    """Lists the items that the user had, those due first; else items that many buy again."""

    name = Origin.BUY_AGAIN.value
    source = POPULAR

    def is_shared(self, item_ids: Sequence[str], *, is_known: bool) -> bool:
        """Returns whether the user is unknown."""
        return not is_known

    def rank(
        self, model: BehaviourModel, context: RankingContext, allowed: Mask, first: int
    ) -> ItemRanking:
        """Ranks the items of the history, and no others; without a history, all items."""
        history = context.profile.history
        if not len(history.items):
            return super().rank(model, context, allowed, first)
        scores = RepurchaseGenerator(model.repeat_days, context.now_us).scores(history)
        return ItemRanking(HISTORY, rank_positive(scores, allowed=allowed, first=first))

    def item_scores(self, model: BehaviourModel) -> NDArray[np.float32]:
        """Returns popularity times repeat rate, or popularity if no rates are known."""
        if model.repeat_rate.any():
            return model.popularity * model.repeat_rate
        return model.popularity

    def reasons(self, model: BehaviourModel, context: RankingContext, number: int) -> Reasons:
        """Returns "again" for items that the user had, and "due" for those known to be due."""
        history = context.profile.history
        if number not in history.items:
            return super().reasons(model, context, number)
        due = RepurchaseGenerator(model.repeat_days, context.now_us).is_due(history, number)
        return ("again", "due") if due else ("again",)


_STRATEGIES: Final[dict[Origin, Strategy]] = {
    Origin.AUTO: AutoStrategy(),
    Origin.POPULAR: PopularStrategy(),
    Origin.TRENDING: TrendingStrategy(),
    Origin.BUY_AGAIN: BuyAgainStrategy(),
}

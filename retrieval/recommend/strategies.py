"""Strategies: where the candidates of a surface come from, one class for each policy origin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple, Protocol

from retrieval.behaviour import generator_names
from retrieval.protocols.candidates import NO_EVENTS, KeyedHistory
from retrieval.recommend.policies import Origin, Policy
from retrieval.recommend.ranking import (
    ITEMS,
    POPULAR,
    ItemRanking,
    RankingQuery,
    rank_by_items,
    rank_for_user,
    rank_repurchases,
)
from retrieval.recommend.trend_candidates import rank_by_visits, rank_co_visited, rank_popular
from retrieval.recommend.user_profile import UserProfile, history_of_items

# Source of a list whose surface is non-personalized by design: not a fallback for a better list.
SURFACE: Final = "surface"
_ITEM = "item:"


class RankingContext(NamedTuple):
    """The user, items and time that a list is ranked for.

    item_ids: Items that the list goes with; empty if there are none or the strategy ignores them.
    repeats: Whether items that the user had may be listed again. now_us: Microseconds since 1970.
    debias: 0..1, discount for popularity; None uses the snapshot's. segments: Numbers of the
    segments that the user is in.
    """

    item_ids: Sequence[str]
    profile: UserProfile
    repeats: bool
    now_us: int
    debias: float | None = None
    segments: tuple[int, ...] = ()


class ReasonsQuery(NamedTuple):
    """What to ask shards for the reasons of items; see `CandidatesRequest`."""

    generator: str
    history: KeyedHistory
    trained_only: bool = False


class Strategy(Protocol):
    """A source of candidates that ranks items by behaviour.

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
            is_known: Whether the user has a history, or is in a segment.
        """
        ...

    def list_name(self, item_id: str) -> str:
        """Returns the cache name of an item's shared list; "" names the list without an item."""
        ...

    def shared_source(self, item_id: str) -> str:
        """Returns the source that is reported for a shared list: ITEMS, POPULAR or SURFACE."""
        ...

    async def rank(self, query: RankingQuery, context: RankingContext) -> ItemRanking | None:
        """Ranks items; returns None if no interactions can, so that vectors have to."""
        ...

    def reasons(self, context: RankingContext) -> ReasonsQuery:
        """Returns what to ask shards for the reasons of listed items."""
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

    async def rank(self, query: RankingQuery, context: RankingContext) -> ItemRanking | None:
        """Ranks by the items, else by the history, else by popularity.

        Of items and histories that the model does not know, co-visits decide.
        """
        if context.item_ids:
            return await rank_by_items(
                query, context.item_ids, context.debias
            ) or await rank_co_visited(query, context.item_ids)
        if context.profile.is_known:
            return await rank_for_user(
                query, repeats=context.repeats, debias=context.debias
            ) or await rank_by_visits(query, context.profile.events)
        return await rank_popular(query, generator_names.POPULAR, POPULAR)

    def reasons(self, context: RankingContext) -> ReasonsQuery:
        """Asks for the items, or else the events of the history, that speak for an item."""
        if context.item_ids:
            given = history_of_items(context.item_ids)
            return ReasonsQuery(generator_names.GOES_WITH, given, trained_only=True)
        return ReasonsQuery(generator_names.USER, context.profile.history)


class PopularStrategy:
    """Lists the most popular items, the same for everyone."""

    uses_items = False
    name = Origin.POPULAR.value
    source = SURFACE
    generator = generator_names.POPULAR

    def is_shared(self, item_ids: Sequence[str], *, is_known: bool) -> bool:
        """Returns True: every list is shared."""
        return True

    def list_name(self, item_id: str) -> str:
        """Returns the name of the strategy."""
        return self.name

    def shared_source(self, item_id: str) -> str:
        """Returns the source of the non-personalized list."""
        return self.source

    async def rank(self, query: RankingQuery, context: RankingContext) -> ItemRanking | None:
        """Ranks by the statistic of the strategy; the remaining items follow by counts."""
        return await rank_popular(replace(query, segments=()), self.generator, self.source)

    def reasons(self, context: RankingContext) -> ReasonsQuery:
        """Asks whether an item has interactions."""
        return ReasonsQuery(self.generator, NO_EVENTS)


class TrendingStrategy(PopularStrategy):
    """Lists the items with the most recent interactions, the same for everyone."""

    name = Origin.TRENDING.value
    generator = generator_names.TRENDING


class BuyAgainStrategy(PopularStrategy):
    """Lists the items that the user had, those due first; else items that many buy again."""

    name = Origin.BUY_AGAIN.value
    source = POPULAR
    generator = generator_names.REBOUGHT

    def is_shared(self, item_ids: Sequence[str], *, is_known: bool) -> bool:
        """Returns whether the user is unknown."""
        return not is_known

    async def rank(self, query: RankingQuery, context: RankingContext) -> ItemRanking | None:
        """Ranks the items of the history, and no others; without a history, all items."""
        profile, ranking = context.profile, None
        if profile.is_known:
            ranking = await rank_repurchases(query, context.now_us)
        return ranking or await super().rank(query, context)

    def reasons(self, context: RankingContext) -> ReasonsQuery:
        """Asks whether the user had an item, and whether it is due."""
        return ReasonsQuery(generator_names.REPURCHASE, context.profile.history)


_STRATEGIES: Final[dict[Origin, Strategy]] = {
    Origin.AUTO: AutoStrategy(),
    Origin.POPULAR: PopularStrategy(),
    Origin.TRENDING: TrendingStrategy(),
    Origin.BUY_AGAIN: BuyAgainStrategy(),
}

"""One list, made from one snapshot: candidates, then the rules of the surface."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np

from nearline import contract as c
from nearline import wire
from retrieval.behaviour.history import History
from retrieval.behaviour.model import BehaviourModel
from retrieval.recommend.cached_candidates import CachedCandidates, CandidateCache
from retrieval.recommend.candidates import CandidatePool, CandidateQuery, allowed_mask
from retrieval.recommend.explanations import Explainer
from retrieval.recommend.filters import merge_filters
from retrieval.recommend.policies import NO_PAYLOAD, Policy
from retrieval.recommend.ranking import POPULAR
from retrieval.recommend.rules import Placement, apply_rules
from retrieval.recommend.shared_lists import items_as_history
from retrieval.recommend.similar_items import SimilarItems
from retrieval.recommend.strategies import (
    context_items,
    is_shared_list,
    rank_for_surface,
    shared_list_source,
    uses_behaviour_only,
)
from retrieval.recommend.user_profile import EMPTY_HISTORY, UserProfile
from retrieval.search import item_lookup
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext

# What made a list, beside what `ranking` names: vectors of items; or nothing, so that it stands in
# the order of ids.
CONTENT = "content"
UNORDERED = "unordered"
# Items that are put in order before the others: more than most lists need.
_FIRST = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRequest:
    """What is to be made: for whom, by which policy, with which options."""

    audience: c.Audience
    options: c.RecommendOptions
    policy: Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltList:
    """A list. source: What made it: items, history, popular, surface, content or unordered.

    hot: The cached list that it was made from; None: it was made again.
    """

    recommendations: Sequence[c.Recommendation]
    ignored: Sequence[c.IgnoredId]
    source: str
    hot: CachedCandidates | None
    why_not: c.WhyNot | None = None


class ListBuilder:
    """Makes one list.

    Args:
        served: The snapshot that it is made from.
        order: What is to be made.
        inquiry: Told of shards that do not answer, and how far live changes are in the others.
        similar: Finds items by the vectors of others.
        hot: Lists that are the same for everybody; None: every list is made again.
        rng: Draws what is explored.
    """

    def __init__(
        self,
        served: ServedCollection,
        order: ListRequest,
        inquiry: RequestContext,
        similar: SimilarItems,
        hot: CandidateCache | None,
        rng: np.random.Generator,
    ) -> None:
        self._served = served
        self._learned = served.learned
        self._order = order
        self._inquiry = inquiry
        self._similar = similar
        # A cached list may be minutes old: what is asked of one must be true of now.
        self._hot = None if order.options.why_not_id else hot
        self._found: CachedCandidates | None = None
        self._rng = rng
        self._now_us = time.time_ns() // 1_000
        options, policy = order.options, order.policy
        self._subject = UserProfile()
        self._seen: frozenset[str] = frozenset()
        self._ids = list(dict.fromkeys(order.audience.item_ids))
        self._excluded = frozenset((*options.exclude_ids, *self._ids))
        needed = policy.needs(options.diversity)
        narrow = merge_filters(options.filter, policy.only)
        self._reading = CandidateQuery(served, options.payload | needed, narrow, inquiry)
        # Where no rule may prefer what stands further down, what is listed is enough.
        deep = bool(needed) or policy.explore is not None
        self._enough = max(options.n, policy.candidates) if deep else options.n
        # Nor is anything else to be said of an item than what it shows.
        told = options.explain or bool(options.why_not_id)
        self._plain = not (deep or told or policy.pinned)
        self._shown: wire.RawHits[c.Recommendation] | None = None
        # It is known that there is no such item.
        self._missing = False
        self._ahead: Awaitable[CachedCandidates | None] | None = None

    @cached_property
    def _pool(self) -> CandidatePool:
        """What the list is made from; one that is given as it was cached needs none."""
        return CandidatePool(self._order.options.payload)

    @cached_property
    def _without(self) -> frozenset[str]:
        """Ids of what is not to be listed."""
        return self._seen | self._excluded | self._order.policy.blocked

    def begin(self) -> None:
        """Begins to read what does not depend on the user, while others look for what does."""
        items = context_items(self._order.policy, self._ids)
        if is_shared_list(self._order.policy, items, is_known=True):
            self._ahead = self._hot_list(items)

    async def make(self, subject: UserProfile) -> BuiltList:
        """Makes it.

        Args:
            subject: Whom it is for.
        Raises: ShardsUnavailable, DeadlineExceeded: no shard answered. InvalidRequest: a filter on
            an attribute that does not exist.
        """
        order, options = self._order, self._order.options
        self._subject, ids = subject, self._ids
        self._seen = subject.seen(order.policy, self._now_us)
        items = context_items(order.policy, ids)
        ignored: Sequence[c.IgnoredId] = ()
        # What goes with one item is asked for most; of what there is a list there is an item.
        source = await self._from_hot(items) if len(items) == 1 else ""
        if ids and not source:
            there, ignored = await self._given(ids)
            items = context_items(order.policy, there)
        if len(items) < len(ids) or not ids:
            source = await self._from_hot(items)
        source = source or await self._from_shards(items)
        if self._shown is not None:
            return BuiltList(
                recommendations=self._shown, ignored=ignored, source=source, hot=self._found
            )
        pinned = CandidatePool(options.payload)
        if order.policy.pinned:
            await pinned.read(self._reading, [(one, 0.0) for one in order.policy.pinned])
            self._pool.hits = pinned.hits | self._pool.hits
        outcome = apply_rules(
            self._pool.candidates,
            order.policy,
            options.n,
            seen=self._seen,
            excluded=self._excluded,
            pinned=pinned.candidates,
            diversity=options.diversity,
            now_us=self._now_us,
            rng=self._rng,
            why_not=options.why_not_id,
        )
        telling = Explainer(self._reading, order.policy, subject, items, self._now_us)
        why = outcome.why_not
        return BuiltList(
            recommendations=[self._recommendation(one, telling) for one in outcome.places],
            ignored=ignored,
            source=source,
            hot=self._found,
            why_not=None if why is None else await telling.why_not(why, options.filter),
        )

    async def _given(self, ids: Sequence[str]) -> tuple[Sequence[str], Sequence[c.IgnoredId]]:
        """Returns the example items that there are, and those that were left out."""
        if self._missing:
            return (), [c.IgnoredId(one, c.IgnoredReason.NOT_FOUND) for one in ids]
        learned = self._learned
        # Of what the snapshot has, the shards need not be asked.
        asked = [one for one in ids if learned is None or learned.number_of(one) is None]
        if not asked:
            return ids, ()
        found = await item_lookup.fetch_items(self._served, asked, NO_PAYLOAD, self._inquiry)
        ignored = item_lookup.ignored_ids(self._served, asked, found)
        gone = {one.id for one in ignored}
        return [one for one in ids if one not in gone], ignored

    async def _from_hot(self, items: Sequence[str]) -> str:
        """Fills the pool from a list that is the same for everybody.

        Returns: What made it; empty: there is none, or too little of it is left for this user.
        """
        order = self._order
        if not is_shared_list(order.policy, items, is_known=self._subject.is_known):
            return ""
        ahead, self._ahead = self._ahead, None
        found = await reading if (reading := ahead or self._hot_list(items)) else None
        if found is None:
            return ""
        item = items[0] if items else ""
        listed = found.candidates
        if listed is None:
            self._missing = True
            return ""
        # What is blocked is on no cached list.
        without = self._seen | self._excluded
        each = zip(listed.ids, listed.messages, strict=True)
        left = (message for one, message in each if one not in without)
        kept = list(islice(left, self._enough))
        if len(kept) < self._enough and not found.whole:
            return ""
        self._found = found
        if self._plain:
            self._shown = wire.lazy_recommendations(kept)
        else:
            for one in kept:
                self._pool.add_hit(wire.recommended_hit_from_bytes(one))
        return CONTENT if found.content else shared_list_source(order.policy, item)

    def _hot_list(self, items: Sequence[str]) -> Awaitable[CachedCandidates | None] | None:
        if self._hot is None:
            return None
        item = items[0] if items else ""
        return self._hot.begin(self._reading, self._order.policy, item, self._enough)

    async def _from_shards(self, items: Sequence[str]) -> str:
        learned, subject = self._learned, self._subject
        if learned is not None:
            given = items_as_history(learned, items)
            history = subject.history
            if uses_behaviour_only(self._order.policy):
                return await self._fill(learned, EMPTY_HISTORY, history)
            # What nobody had yet can only be gone by its vectors.
            if len(given.items) or (not items and (len(history.items) or not subject.is_known)):
                return await self._fill(learned, given, history)
        found = await self._by_content(items)
        if found:
            return CONTENT
        if learned is not None:
            await self._fill(learned, EMPTY_HISTORY, subject.history)
            return POPULAR
        await self._in_order()
        return UNORDERED

    async def _fill(self, learned: BehaviourModel, given: History, history: History) -> str:
        """Fills the pool by behaviour; tells what of it."""
        ranking = rank_for_surface(
            learned,
            self._order.policy,
            given,
            history,
            allowed=await allowed_mask(self._reading, learned, self._without),
            first=max(self._enough, _FIRST),
            now_us=self._now_us,
        )
        await self._pool.fill(self._reading, learned.ids, ranking.blocks, self._enough)
        return ranking.source

    async def _by_content(self, items: Sequence[str]) -> bool:
        """Fills the pool with what is like the items, or like what the user had last."""
        like = items or [one.item_id for one in self._subject.events]
        found = None
        if like:
            found = await self._similar.to(self._reading, like, self._enough, self._without)
        for one, score in found or ():
            self._pool.add(one, score, one.vector)
        return bool(found)

    async def _in_order(self) -> None:
        """Fills the pool where nothing speaks for any item."""
        listed = await self._similar.any(self._reading, self._enough + len(self._without))
        for one in islice((one for one in listed if one.id not in self._without), self._enough):
            self._pool.add(one, 0.0, one.vector)

    def _recommendation(self, placed: Placement, telling: Explainer) -> c.Recommendation:
        reasons: tuple[str, ...] = ()
        if self._order.options.explain:
            reasons = (*placed.reasons, *telling.reasons(placed.candidate.id))
        hit = self._pool.hits[placed.candidate.id]
        return c.Recommendation(hit=hit, reasons=reasons, propensity=placed.propensity)

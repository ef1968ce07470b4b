"""One list, made from one snapshot: candidates, then the rules of the surface."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

import numpy as np

from nearline import contract as c
from retrieval import examples
from retrieval.behaviour.history import History
from retrieval.behaviour.learned import Learned
from retrieval.inquiry import Inquiry
from retrieval.recommending.content import Similar
from retrieval.recommending.hot_candidates import Hot, HotCandidates, as_given, is_trained
from retrieval.recommending.policies import Policy, seen_items
from retrieval.recommending.pool import Pool, Reading, allowed_by
from retrieval.recommending.ranking import ITEMS, POPULAR, place_of, rank
from retrieval.recommending.reasons import reasons_for
from retrieval.recommending.rules import Outcome, Placed, arrange
from retrieval.recommending.subject import NOBODY, Subject
from retrieval.served import ServedCollection

# What made a list, beside what `ranking` names: vectors of items; or nothing, so that it stands in
# the order of ids.
CONTENT = "content"
UNORDERED = "unordered"
# Items that are put in order before the others: more than most lists need.
_FIRST = 64
_NOTHING: frozenset[c.PayloadField] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be made: for whom, by which policy, with which options."""

    audience: c.Audience
    options: c.RecommendOptions
    policy: Policy
    subject: Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A list. source: What made it: items, history, popular, content or unordered.

    hot: The cached list that it was made from; None: it was made anew.
    """

    recommendations: Sequence[c.Recommendation]
    ignored: Sequence[c.IgnoredId]
    source: str
    hot: Hot | None
    why_not: c.WhyNot | None


class Making:
    """Makes one list.

    Args:
        served: The snapshot that it is made from.
        order: What is to be made.
        inquiry: Told of shards that do not answer, and how far live changes are in the others.
        similar: Finds items by the vectors of others.
        hot: Lists that are the same for everybody; None: every list is made anew.
        rng: Draws what is explored.
    """

    def __init__(
        self,
        served: ServedCollection,
        order: Order,
        inquiry: Inquiry,
        similar: Similar,
        hot: HotCandidates | None,
        rng: np.random.Generator,
    ) -> None:
        self._served = served
        self._learned = served.learned
        self._order = order
        self._inquiry = inquiry
        self._similar = similar
        self._hot = hot
        self._found: Hot | None = None
        self._rng = rng
        self._now_us = time.time_ns() // 1_000
        options, policy = order.options, order.policy
        events = chain(order.subject.events, order.subject.older)
        self._seen = seen_items(policy, events, now_us=self._now_us)
        self._excluded = frozenset((*options.exclude_ids, *order.audience.item_ids))
        self._without = self._seen | self._excluded | policy.blocked
        needed = policy.needs(options.diversity)
        self._reading = Reading(served, options.payload | needed, options.filter, inquiry)
        # Where no rule may prefer what stands further down, what is listed is enough.
        deep = bool(needed) or policy.explore is not None
        self._enough = max(options.n, policy.candidates) if deep else options.n
        self._pool = Pool(options.payload)

    async def make(self) -> Made:
        """Makes it.

        Raises: ShardsUnavailable, DeadlineExceeded: no shard answered. InvalidRequest: a filter on
            an attribute that does not exist.
        """
        order, options = self._order, self._order.options
        items, ignored = await self._given()
        source = await self._from_hot(items) or await self._from_shards(items)
        pinned = Pool(options.payload)
        if order.policy.pinned:
            await pinned.read(self._reading, [(one, 0.0) for one in order.policy.pinned])
            self._pool.hits = pinned.hits | self._pool.hits
        outcome = arrange(
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
        return Made(
            recommendations=[self._recommendation(one, items) for one in outcome.places],
            ignored=ignored,
            source=source,
            hot=self._found,
            why_not=await self._why_not(outcome, items),
        )

    async def _given(self) -> tuple[Sequence[str], Sequence[c.IgnoredId]]:
        """Gives the example items that there are, and those that were left out."""
        ids = list(dict.fromkeys(self._order.audience.item_ids))
        learned = self._learned
        # Of what the snapshot has, the shards need not be asked.
        asked = [one for one in ids if learned is None or learned.number_of(one) is None]
        if not asked:
            return ids, ()
        found = await examples.fetch(self._served, asked, _NOTHING, self._inquiry)
        ignored = examples.ignored(self._served, asked, found)
        gone = {one.id for one in ignored}
        return [one for one in ids if one not in gone], ignored

    async def _from_hot(self, items: Sequence[str]) -> str:
        """Fills the pool from a list that is the same for everybody.

        Returns: What made it; empty: there is none, or too little of it is left for this user.
        """
        order, learned = self._order, self._learned
        alike = len(items) == 1 or (not items and not order.subject.events)
        if self._hot is None or learned is None or not alike:
            return ""
        item = items[0] if items else ""
        if item and not is_trained(learned, item):
            return ""
        found = await self._hot.read(self._reading, order.policy, item, self._enough)
        if found is None:
            return ""
        left = (one for one in found.items if one.id not in self._without)
        kept = list(islice(left, self._enough))
        if len(kept) < self._enough and not found.whole:
            return ""
        for one in kept:
            self._pool.add(one, one.score)
        self._found = found
        return ITEMS if item else POPULAR

    async def _from_shards(self, items: Sequence[str]) -> str:
        learned, subject = self._learned, self._order.subject
        if learned is not None:
            given = as_given(learned, items)
            history = subject.history
            # What nobody had yet can only be gone by its vectors.
            if len(given.items) or (not items and (len(history.items) or not subject.events)):
                return await self._fill(learned, given, history)
        found = await self._by_content(items)
        if found:
            return CONTENT
        if learned is not None:
            await self._fill(learned, NOBODY, subject.history)
            return POPULAR
        await self._in_order()
        return UNORDERED

    async def _fill(self, learned: Learned, given: History, history: History) -> str:
        """Fills the pool by behaviour; tells what of it."""
        ranking = rank(
            learned,
            given,
            history,
            repeats=self._order.policy.seen.repeat,
            allowed=await allowed_by(self._reading, learned, self._without),
            first=max(self._enough, _FIRST),
        )
        await self._pool.fill(self._reading, learned.ids, ranking.blocks, self._enough)
        return ranking.source

    async def _by_content(self, items: Sequence[str]) -> bool:
        """Fills the pool with what is like the items, or like what the user had last."""
        like = items or [one.item_id for one in self._order.subject.events]
        found = []
        if like:
            found = await self._similar.to(self._reading, like, self._enough, self._without)
        for one, score in found:
            self._pool.add(one, score, one.vector)
        return bool(found)

    async def _in_order(self) -> None:
        """Fills the pool where nothing speaks for any item."""
        listed = await self._similar.any(self._reading, self._enough + len(self._without))
        for one in islice((one for one in listed if one.id not in self._without), self._enough):
            self._pool.add(one, 0.0, one.vector)

    def _recommendation(self, placed: Placed, items: Sequence[str]) -> c.Recommendation:
        reasons: tuple[str, ...] = ()
        if self._order.options.explain:
            reasons = (*placed.reasons, *self._reasons(placed.candidate.id, items))
        hit = self._pool.hits[placed.candidate.id]
        return c.Recommendation(hit=hit, reasons=reasons, propensity=placed.propensity)

    def _reasons(self, item_id: str, items: Sequence[str]) -> tuple[str, ...]:
        learned = self._learned
        number = None if learned is None else learned.number_of(item_id)
        if learned is None or number is None:
            return ()
        given = as_given(learned, items)
        if len(given.items):
            return reasons_for(learned, number, given, [learned.similar])
        blend = learned.blend(repeats=self._order.policy.seen.repeat)
        generators = [part.generator for part in blend.parts]
        return reasons_for(learned, number, self._order.subject.history, generators)

    async def _why_not(self, outcome: Outcome, items: Sequence[str]) -> c.WhyNot | None:
        """Adds to what the rules say what they cannot know: whether it exists, and its rank."""
        why = outcome.why_not
        if why is None:
            return None
        if why.cause is not c.Cause.OUTRANKED or why.rank:
            return replace(why, rank=why.rank or self._rank(why.id, items))
        there = await examples.fetch(self._served, [why.id], _NOTHING, self._inquiry)
        if why.id not in there.items:
            message = f"collection {self._served.name!r} has no such item, or no longer"
            return c.WhyNot(id=why.id, cause=c.Cause.NO_SUCH_ITEM, rank=0, message=message)
        filter = self._order.options.filter
        if filter is not None:
            kept = await examples.fetch(self._served, [why.id], _NOTHING, self._inquiry, filter)
            if why.id not in kept.items:
                message = "it does not match the filter of the request"
                return c.WhyNot(id=why.id, cause=c.Cause.FILTERED, rank=0, message=message)
        rank_of = self._rank(why.id, items)
        message = f"others stand before it: it is number {rank_of}" if rank_of else why.message
        return replace(why, rank=rank_of, message=message)

    def _rank(self, item_id: str, items: Sequence[str]) -> int:
        """Gives the place of an item before any rule; 0: there is no order, or it is not in it."""
        learned = self._learned
        number = None if learned is None else learned.number_of(item_id)
        if learned is None or number is None:
            return 0
        everything = np.ones(len(learned.ids), np.bool_)
        ranking = rank(
            learned,
            as_given(learned, items),
            self._order.subject.history,
            repeats=self._order.policy.seen.repeat,
            allowed=everything,
            first=self._enough,
        )
        return place_of(ranking, number)

"""What a list is told of: why an item stands on it, and why another does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from nearline import contract as c
from retrieval.recommend.candidates import CandidateQuery
from retrieval.recommend.policies import NO_PAYLOAD, Policy
from retrieval.recommend.ranking import position_of
from retrieval.recommend.shared_lists import items_as_history
from retrieval.recommend.strategies import describe_mismatch, rank_for_surface, surface_reasons
from retrieval.recommend.user_profile import UserProfile
from retrieval.search import item_lookup

# Of a ranking that is gone through to its end the first part may be of any size.
_FIRST = 64


class Explainer(NamedTuple):
    """What was asked, for one list.

    reading: What items had to match. policy: Of the surface. subject: Whom it is for. items: That
    it goes with, those that there are. now_us: When it was made.
    """

    reading: CandidateQuery
    policy: Policy
    subject: UserProfile
    items: Sequence[str]
    now_us: int

    def reasons(self, item_id: str) -> tuple[str, ...]:
        """Returns the reasons for an item, strongest first; none where nothing was learned of
        it."""
        learned = self.reading.served.learned
        number = None if learned is None else learned.number_of(item_id)
        if learned is None or number is None:
            return ()
        given, history = items_as_history(learned, self.items), self.subject.history
        return surface_reasons(learned, self.policy, number, given, history, self.now_us)

    async def why_not(self, why: c.WhyNot, asked: c.Filter | None) -> c.WhyNot:
        """Adds to what the rules say what they cannot know: whether it exists, and its rank.

        Args:
            asked: The filter of the request.
        Raises: as `Pool.read`.
        """
        if why.cause is not c.Cause.OUTRANKED or why.rank:
            return replace(why, rank=why.rank or self._rank(why.id))
        served, _, filter, inquiry = self.reading
        there = await item_lookup.fetch_items(served, [why.id], NO_PAYLOAD, inquiry)
        if why.id not in there.items:
            message = f"collection {served.name!r} has no such item, or no longer"
            return c.WhyNot(id=why.id, cause=c.Cause.NO_SUCH_ITEM, rank=0, message=message)
        if filter is not None:
            kept = await item_lookup.fetch_items(served, [why.id], NO_PAYLOAD, inquiry, filter)
            if why.id not in kept.items:
                message = describe_mismatch(asked, self.policy)
                return c.WhyNot(id=why.id, cause=c.Cause.FILTERED, rank=0, message=message)
        rank_of = self._rank(why.id)
        message = f"others stand before it: it is number {rank_of}" if rank_of else why.message
        return replace(why, rank=rank_of, message=message)

    def _rank(self, item_id: str) -> int:
        """Returns the place of an item before any rule; 0: there is no order, or it is not in
        it."""
        learned = self.reading.served.learned
        number = None if learned is None else learned.number_of(item_id)
        if learned is None or number is None:
            return 0
        ranking = rank_for_surface(
            learned,
            self.policy,
            items_as_history(learned, self.items),
            self.subject.history,
            allowed=np.ones(len(learned.ids), np.bool_),
            first=_FIRST,
            now_us=self.now_us,
        )
        return position_of(ranking, number)

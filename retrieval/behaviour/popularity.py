"""Scores items by popularity, by how often the user had them, and by how due they are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.times import DAY_US
from retrieval.behaviour.history import History, Recency

# A purchase eight visits ago counts 1 / e.
_RECENCY = Recency(8.0)
# Share of an item's repeat days after which the item counts in full.
_FULL_AFTER = 0.5
# Factor of an item whose repeat days are unknown.
_UNKNOWN = 0.5
# Items that the user had at this moment also score above 0.
_MOMENT_DAYS = 1e-3


class PopularityGenerator(NamedTuple):
    """Scores items the same for everyone.

    item_scores: (items,) float32 >= 0.
    """

    item_scores: NDArray[np.float32]

    def scores(self, history: History) -> NDArray[np.float32]:
        """Scores all items: (items,) float32."""
        return self.item_scores


class BuyAgainGenerator(NamedTuple):
    """Scores the items that a user had by frequency and recency, the others by popularity.

    An interaction r visits ago is weighted by `recency` at rank r. Interactions at the same time
    are one visit.

    item_scores: (items,) float32, popularity. popularity: Score of the most popular item. Below 1,
        popularity orders items that were bought equally often, and ranks other items below those
        that were bought recently.
    """

    item_scores: NDArray[np.float32]
    recency: Recency = Recency()
    popularity: float = 0.3

    def scores(self, history: History) -> NDArray[np.float32]:
        """Scores all items: (items,) float32."""
        most = float(self.item_scores.max(initial=0)) or 1.0
        total: NDArray[np.float32] = self.item_scores * np.float32(self.popularity / most)
        if len(history.items):
            visit = np.cumsum(np.diff(history.time_us, prepend=history.time_us[0]) != 0)
            times = history.time_us[np.flatnonzero(np.diff(visit, prepend=-1))]
            np.add.at(total, history.items, self.recency.factors(times)[visit] * history.weight)
        return total


class RepurchaseGenerator(NamedTuple):
    """Scores the items that a user had by frequency and recency, times how due they are.

        count min(1, days since the user had it last / half of its repeat days)
    count: As in `BuyAgainGenerator`. An item with unknown repeat days scores half of its count.

    Repeat days are a median, so half of the users who have an item again do so earlier. On Online
    Retail, for the first visit of 1,380 users after a split in time, 20 places found 0.601 of the
    items that they bought again; 0.598 without repeat days; 0.546 with all due items first.

    days: (items,) float32, median days after which users have an item again; 0 if unknown.
    now_us: Microseconds since 1970.
    """

    days: NDArray[np.float32]
    now_us: int
    recency: Recency = _RECENCY

    def scores(self, history: History) -> NDArray[np.float32]:
        """Scores all items: (items,) float32, 0 for items that the user never had."""
        count = BuyAgainGenerator(np.zeros_like(self.days), self.recency).scores(history)
        # The first event of an item is its newest.
        items, newest = np.unique(history.items, return_index=True)
        days = self.days[items]
        since = np.maximum((self.now_us - history.time_us[newest]) / DAY_US, _MOMENT_DAYS)
        full_after = np.where(days > 0, _FULL_AFTER * days, since / _UNKNOWN)
        scores = np.zeros_like(self.days)
        scores[items] = count[items] * np.minimum(since / full_after, 1)
        return scores

    def is_due(self, history: History, item: int) -> bool:
        """Returns whether the repeat days of an item that the user had are known and over."""
        last_us = int(history.time_us[history.items == item].max())
        days = float(self.days[item])
        return 0 < days <= (self.now_us - last_us) / DAY_US

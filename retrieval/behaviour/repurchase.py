"""What a user had before, in the order in which they may want it again."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.times import DAY_US
from retrieval.behaviour.history import History, Recency
from retrieval.behaviour.popularity import BuyAgainGenerator

# Eight visits back a purchase counts 1 / e.
_RECENCY = Recency(8.0)
# Of an item's days, after which it counts in full; and what one counts whose days are not known.
_ENOUGH = 0.5
_UNKNOWN = 0.5
# Also what was had this very moment is something that the user had.
_MOMENT_DAYS = 1e-3


class RepurchaseGenerator(NamedTuple):
    """Scores what a user had by how often and lately, times how due it is.

        count min(1, days since it was had last / half of its days)
    count: As `BuyAgainGenerator` counts. Of an item whose days are not known half of that.

    The days are a median, so half of those who have an item again do so before. On Online Retail,
    the first visit of 1,380 users after a cut in time, 20 places found 0.601 of what they had again
    and this time, too; without days 0.598; with all that is due before all that is not 0.546.

    days: (items,) float32, after so many days users have an item again; 0: not known.
    now_us: Microseconds since 1970.
    """

    days: NDArray[np.float32]
    now_us: int
    recency: Recency = _RECENCY

    def scores(self, history: History) -> NDArray[np.float32]:
        """Scores all items: (items,) float32; 0: the user never had it."""
        count = BuyAgainGenerator(np.zeros_like(self.days), self.recency).scores(history)
        # The first of an item is the newest.
        items, newest = np.unique(history.items, return_index=True)
        days = self.days[items]
        since = np.maximum((self.now_us - history.time_us[newest]) / DAY_US, _MOMENT_DAYS)
        enough = np.where(days > 0, _ENOUGH * days, since / _UNKNOWN)
        scores = np.zeros_like(self.days)
        scores[items] = count[items] * np.minimum(since / enough, 1)
        return scores

    def is_due(self, history: History, item: int) -> bool:
        """Returns whether an item that the user had is known to be due: its days are over."""
        last_us = int(history.time_us[history.items == item].max())
        days = float(self.days[item])
        return 0 < days <= (self.now_us - last_us) / DAY_US

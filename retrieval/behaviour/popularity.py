"""What everybody has, and what a user had before."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrieval.behaviour.history import History, Recency


class PopularityGenerator(NamedTuple):
    """Scores items alike for everybody.

    of_items: (items,) float32 >= 0.
    """

    of_items: NDArray[np.float32]

    def scores(self, history: History) -> NDArray[np.float32]:
        """Scores all items: (items,) float32."""
        return self.of_items


class BuyAgainGenerator(NamedTuple):
    """Scores what a user had by how often and how lately; the rest by popularity.

    A count that is r visits old weighs as `recency` has it for rank r; interactions of one moment
    are one visit.

    of_items: (items,) float32, popularity. popularity: What an item at the top of it gets; below 1,
        it orders what was bought equally often and comes after all that was bought lately.
    """

    of_items: NDArray[np.float32]
    recency: Recency = Recency()
    popularity: float = 0.3

    def scores(self, history: History) -> NDArray[np.float32]:
        """Scores all items: (items,) float32."""
        most = float(self.of_items.max(initial=0)) or 1.0
        total: NDArray[np.float32] = self.of_items * np.float32(self.popularity / most)
        if len(history.items):
            visit = np.cumsum(np.diff(history.time_us, prepend=history.time_us[0]) != 0)
            times = history.time_us[np.flatnonzero(np.diff(visit, prepend=-1))]
            np.add.at(total, history.items, self.recency.factors(times)[visit] * history.weight)
        return total

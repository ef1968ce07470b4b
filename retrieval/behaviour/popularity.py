"""Scores items by popularity, and by how often the user had them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrieval.behaviour.history import History, Recency


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

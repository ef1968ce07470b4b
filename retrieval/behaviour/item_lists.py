"""Lists of the items that go with an item, and scores of a user's history by them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrieval.behaviour.history import History, Recency


class ItemLists(NamedTuple):
    """The items that go with each item, best first; items with equal scores in order of number.

    starts: (items + 1,) int64; the list of item i is starts[i]:starts[i + 1].
    others: (m,) int32 item numbers. scores: (m,) float32 > 0.
    """

    starts: NDArray[np.int64]
    others: NDArray[np.int32]
    scores: NDArray[np.float32]

    @property
    def items(self) -> int:
        """Number of items."""
        return len(self.starts) - 1

    def of(self, item: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Returns the list of an item: item numbers and scores."""
        part = slice(self.starts[item], self.starts[item + 1])
        return self.others[part], self.scores[part]

    def weighted_sum(
        self, items: NDArray[np.int32], weights: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Returns the weighted sum of some lists: (items,) float32, 0 for items in none."""
        firsts = self.starts[items]
        counts = self.starts[items + 1] - firsts
        # Places of the entries of all lists: each list counts up from its first entry.
        ends = np.cumsum(counts)
        places = np.arange(ends[-1] if len(ends) else 0)
        places += np.repeat(firsts - (ends - counts), counts)
        total = np.bincount(
            self.others[places],
            weights=self.scores[places] * np.repeat(weights, counts),
            minlength=self.items,
        )
        return total.astype(np.float32)


class ListGenerator(NamedTuple):
    """Scores items by the lists of the items that a user had.

    recency: Decay of older interactions. newest: Number of interactions that count.
    """

    lists: ItemLists
    recency: Recency = Recency()
    newest: int = 128

    def scores(self, history: History) -> NDArray[np.float32]:
        """Scores all items: (items,) float32, 0 for items on none of the lists."""
        items = history.items[: self.newest]
        factors = self.recency.factors(history.time_us[: self.newest])
        factors *= history.weight[: self.newest]
        return self.lists.weighted_sum(items, factors)

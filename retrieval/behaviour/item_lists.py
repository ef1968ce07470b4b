"""Lists of items that go with an item, and what they say of a user who had several."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrieval.behaviour.history import History, Recency


class ItemLists(NamedTuple):
    """For each item the items that go with it, best first; equal ones in the order of numbers.

    starts: (items + 1,) int64: list of item i is starts[i]:starts[i + 1].
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
        """Returns the list of an item: numbers and scores."""
        part = slice(self.starts[item], self.starts[item + 1])
        return self.others[part], self.scores[part]

    def joined(self, items: NDArray[np.int32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """Adds up the lists of some items, each by a weight: (items,) float32; 0: in none."""
        firsts = self.starts[items]
        counts = self.starts[items + 1] - firsts
        # Places of all entries of all lists: each list counts on from its first.
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
    """Scores items by the lists of what a user had.

    lists: The lists. recency: How older interactions count. newest: So many are looked at.
    """

    lists: ItemLists
    recency: Recency = Recency()
    newest: int = 128

    def scores(self, history: History) -> NDArray[np.float32]:
        """Scores all items: (items,) float32; 0: nothing speaks for it."""
        items = history.items[: self.newest]
        factors = self.recency.factors(history.time_us[: self.newest])
        factors *= history.weight[: self.newest]
        return self.lists.joined(items, factors)

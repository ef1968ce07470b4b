"""Lists of the items that go with an item, and scores of a user's history by them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrieval.behaviour.history import History, Recency
from retrieval.behaviour.spilled_array import SpilledArray
from retrieval.protocols.scored_rows import NO_ROWS, ScoredRows, sum_by_row

# Entries renumbered at a time: about 100 MB.
_BLOCK_ENTRIES = 1 << 21


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

    def entries(self, items: NDArray[np.int32] | NDArray[np.int64]) -> ListEntries:
        """Returns the entries of the lists of some items, list by list."""
        firsts, ends = self.starts.take(items), self.starts.take(items + 1)
        # Copying the part of each list takes half as long as reading entry by entry.
        parts = [slice(*bounds) for bounds in zip(firsts.tolist(), ends.tolist(), strict=True)]
        if not parts:
            parts = [slice(0, 0)]
        return ListEntries(
            np.concatenate([self.others[part] for part in parts]),
            np.concatenate([self.scores[part] for part in parts]),
            np.repeat(np.arange(len(items)), ends - firsts),
        )

    def renumbered(
        self, numbers: NDArray[np.integer[Any]], kept: NDArray[np.bool_] | None = None
    ) -> ItemLists:
        """Returns the lists with other numbers of the items on them.

        Args:
            numbers: (items,), the new numbers, in the same order; an item with -1 is left out.
            kept: (items,), whether a list is kept; the others become empty. None keeps all.
        """
        others, scores = SpilledArray(np.int32), SpilledArray(np.float32)
        counts = np.zeros(self.items, np.int64)
        first = 0
        while first < self.items:
            least = int(np.searchsorted(self.starts, self.starts[first] + _BLOCK_ENTRIES, "right"))
            stop = min(max(least - 1, first + 1), self.items)
            part = slice(self.starts[first], self.starts[stop])
            of = np.repeat(np.arange(stop - first), np.diff(self.starts[first : stop + 1]))
            found = numbers[self.others[part]]
            left = found >= 0
            if kept is not None:
                left &= kept[first:stop][of]
            counts[first:stop] = np.bincount(of[left], minlength=stop - first)
            others.add(found[left])
            scores.add(self.scores[part][left])
            first = stop
        starts = np.concatenate(([0], np.cumsum(counts)))
        return ItemLists(starts, others.array(), scores.array())


class ListEntries(NamedTuple):
    """n entries of the lists of some items.

    others: (n,) int32. scores: (n,) float32. events: (n,) int64, position of the item whose list
    has the entry.
    """

    others: NDArray[np.int32]
    scores: NDArray[np.float32]
    events: NDArray[np.int64]


class ListGenerator(NamedTuple):
    """Scores items by the lists of the items that a user had.

    recency: Decay of older interactions. newest: Number of interactions that count.
    """

    lists: ItemLists
    recency: Recency = Recency()
    newest: int = 128

    def best(self, history: History, allowed: NDArray[np.bool_], most: int) -> ScoredRows:
        """Returns the best allowed items on any of the lists; see `Generator`."""
        entries = self.lists.entries(history.items[: self.newest])
        if not len(entries.others):
            return NO_ROWS
        values = entries.scores * self.event_weights(history).take(entries.events)
        rows, sums = sum_by_row(entries.others, values, len(allowed))
        shown = allowed.take(rows)
        return ScoredRows.best_of(rows[shown], sums[shown], most).positive()

    def event_weights(self, history: History) -> NDArray[np.float32]:
        """Returns how much the list of each of the newest interactions counts."""
        weights = self.recency.factors(history.time_us[: self.newest])
        weights *= history.weight[: self.newest]
        return weights

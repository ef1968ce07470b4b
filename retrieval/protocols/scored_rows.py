"""Scores of a few items: the rows of the items, ascending, and a score for each."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# For each thread, a number for every item; see `sum_by_row`.
_scratch = threading.local()


class ScoredRows(NamedTuple):
    """Scores of n items.

    rows: (n,) int64, ascending, each once. scores: (n,) float32.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]

    @classmethod
    def best_of(cls, rows: NDArray[np.int64], scores: NDArray[np.float32], most: int) -> ScoredRows:
        """Returns the best of some items; see `best`.

        Args:
            rows: (n,), each once, in any order. scores: (n,).
        """
        extra = len(rows) - most
        if extra > 0 and most > 0:
            kept = scores >= np.partition(scores, extra)[extra]
            rows, scores = rows[kept], scores[kept]
        order = np.argsort(rows)
        return cls(rows[order], scores[order]).best(most)

    def best(self, most: int) -> ScoredRows:
        """Returns the items with the highest scores; of equal ones, those with the lower rows."""
        extra = len(self.rows) - most
        if extra <= 0:
            return self
        if most <= 0:
            return NO_ROWS
        least = np.partition(self.scores, extra)[extra]
        kept = self.scores > least
        ties = np.flatnonzero(self.scores == least)
        kept[ties[: most - int(np.count_nonzero(kept))]] = True
        return ScoredRows(self.rows[kept], self.scores[kept])

    def positive(self) -> ScoredRows:
        """Returns the items with a score above 0."""
        kept = self.scores > 0
        return self if kept.all() else ScoredRows(self.rows[kept], self.scores[kept])

    def within(self, allowed: NDArray[np.bool_]) -> ScoredRows:
        """Returns the allowed items. allowed: (items,) bool."""
        kept = allowed[self.rows]
        return ScoredRows(self.rows[kept], self.scores[kept])

    def without(self, rows: NDArray[np.int64]) -> ScoredRows:
        """Returns the items that are not among some rows."""
        kept = np.isin(self.rows, rows, invert=True)
        return ScoredRows(self.rows[kept], self.scores[kept])

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the scores of some rows: (n,) float32, 0 for rows without a score."""
        found = np.zeros(len(rows), np.float32)
        if len(self.rows):
            places = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
            known = self.rows[places] == rows
            found[known] = self.scores[places[known]]
        return found

    def ranked(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Returns rows and scores, best first; items with equal scores in order of row."""
        order = self.best_first()
        return self.rows[order], self.scores[order]

    def best_first(self) -> NDArray[np.int64]:
        """Returns the positions of the items, best first; equal scores in order of row."""
        return np.argsort(-self.scores, kind="stable")


NO_ROWS = ScoredRows(np.empty(0, np.int64), np.empty(0, np.float32))


def add_up(parts: Sequence[ScoredRows], weights: Sequence[float]) -> ScoredRows:
    """Returns the weighted sum of scores; an item counts 0 in the parts that lack it."""
    rows = union(parts)
    total = np.zeros(len(rows), np.float32)
    for part, weight in zip(parts, weights, strict=True):
        if weight:
            total[np.searchsorted(rows, part.rows)] += np.float32(weight) * part.scores
    return ScoredRows(rows, total)


def union(parts: Sequence[ScoredRows]) -> NDArray[np.int64]:
    """Returns the rows of all parts, ascending, each once."""
    rows = np.sort(np.concatenate([NO_ROWS.rows, *(part.rows for part in parts)]))
    # Of so few rows, this takes a third as long as np.unique.
    return rows[first_of_runs(rows)]


def first_of_runs(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Returns which values differ from the one before: (n,) bool; the first one does."""
    firsts = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=firsts[1:])
    return firsts


def sum_by_row(
    rows: NDArray[np.int32], values: NDArray[np.float32], items: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Returns the rows, each once and in no order, and the sum of the values of each.

    Takes no longer if there are more items. Sorting the rows takes three times as long, and an
    array of sums for all items, with 250,000 of them, 15 times.

    Args:
        rows: (n,), in any order, any number of times.
        values: (n,) > 0.
        items: Number of items; rows are below it.
    """
    places = rows.astype(np.int64)
    numbers = np.arange(len(rows), dtype=np.int32)
    last_of = _numbers_of_items(items)
    # Afterwards, an item has the number of its last value; others keep what they had.
    last_of[places] = numbers
    last = last_of.take(places)
    found = np.flatnonzero(last == numbers)
    sums = np.bincount(last, values, len(rows)).take(found)
    return places.take(found), sums.astype(np.float32)


def _numbers_of_items(items: int) -> NDArray[np.int32]:
    """Returns an array of this thread with a number for each item, of any value."""
    numbers: NDArray[np.int32] | None = getattr(_scratch, "numbers", None)
    if numbers is None or len(numbers) < items:
        numbers = _scratch.numbers = np.zeros(items, np.int32)
    return numbers

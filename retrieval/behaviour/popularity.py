"""Scores items by popularity, by how often the user had them, and by how due they are."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.times import DAY_US
from retrieval.behaviour.history import History, Recency
from retrieval.protocols.scored_rows import NO_ROWS, ScoredRows, first_of_runs

# A purchase eight visits ago counts 1 / e.
_RECENCY = Recency(8.0)
# Share of an item's repeat days after which the item counts in full.
_FULL_AFTER = 0.5
# Factor of an item whose repeat days are unknown.
_UNKNOWN = 0.5
# Items that the user had at this moment also score above 0.
_MOMENT_DAYS = 1e-3
# Items that are kept in order of their score: more than any list or filter usually asks for.
_ORDERED = 20_000


class ItemScores:
    """A score for each item, the same for everyone, with the order of the best.

    values: (items,) float32 >= 0. some: Whether any item of the snapshot has a score. most: The
    largest score in the snapshot; 1 without any.

    Args:
        values: Of the items that may be candidates.
        most: The largest score in the snapshot; None if all of its items may be candidates.
    """

    def __init__(self, values: NDArray[np.float32], most: float | None = None) -> None:
        self.values = values
        largest = float(values.max(initial=0)) if most is None else most
        self.some = largest > 0
        self.most = largest or 1.0

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """The items with the highest scores, best first."""
        rows = np.flatnonzero(self.values > 0)
        return ScoredRows(rows, self.values[rows]).best(_ORDERED).ranked()[0]

    def best(self, allowed: NDArray[np.bool_], most: int) -> ScoredRows:
        """Returns the best allowed items with a score above 0."""
        # Nearly always, a few more than the wanted number of items have enough allowed ones.
        for first in (2 * most, len(self._order)):
            order = self._order[:first]
            rows = order[allowed[order]][:most]
            if len(rows) == most or (first >= len(self._order) < _ORDERED):
                rows = np.sort(rows)
                return ScoredRows(rows, self.values[rows])
        rows = np.flatnonzero(allowed & (self.values > 0))
        return ScoredRows(rows, self.values[rows]).best(most)


class PopularityGenerator(NamedTuple):
    """Scores items the same for everyone."""

    item_scores: ItemScores

    def best(self, history: History, allowed: NDArray[np.bool_], most: int) -> ScoredRows:
        """Returns the best allowed items; see `Generator`."""
        return self.item_scores.best(allowed, most)


class BuyAgainGenerator(NamedTuple):
    """Scores the items that a user had by frequency and recency, the others by popularity.

    An interaction r visits ago is weighted by `recency` at rank r. Interactions at the same time
    are one visit.

    item_scores: Popularity. popularity: Score of the most popular item. Below 1, popularity orders
        items that were bought equally often, and ranks other items below those that were bought
        recently.
    """

    item_scores: ItemScores
    recency: Recency = Recency()
    popularity: float = 0.3

    def best(self, history: History, allowed: NDArray[np.bool_], most: int) -> ScoredRows:
        """Returns the best allowed items; see `Generator`."""
        popular = self.item_scores.best(allowed, most).rows
        had, counts = visit_counts(history, self.recency)
        rows = np.union1d(popular, had[allowed[had]])
        share = np.float32(self.popularity / self.item_scores.most)
        scores = self.item_scores.values[rows] * share
        scores[np.isin(rows, had)] += counts[allowed[had]]
        return ScoredRows(rows, scores).positive().best(most)


def visit_counts(
    history: History, recency: Recency
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Returns the rows of the items of a history, ascending, and the sum of the weights of each.

    An interaction r visits ago has the recency of rank r; interactions at one time are one visit.
    """
    if not len(history.items):
        return NO_ROWS
    visit, times = history.visits(), history.time_us[first_of_runs(history.time_us)]
    events, rows = history.own_rows()
    had, index = np.unique(rows, return_inverse=True)
    counts = np.zeros(len(had), np.float32)
    np.add.at(counts, index, (recency.factors(times)[visit] * history.weight)[events])
    return had, counts


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

    def best(self, history: History, allowed: NDArray[np.bool_], most: int) -> ScoredRows:
        """Returns the best allowed items that the user had; see `Generator`."""
        items, counts = visit_counts(history, self.recency)
        # The first event of an item is its newest.
        events, rows = history.own_rows()
        newest = events[np.unique(rows, return_index=True)[1]]
        days = self.days[items]
        since = np.maximum((self.now_us - history.time_us[newest]) / DAY_US, _MOMENT_DAYS)
        full_after = np.where(days > 0, _FULL_AFTER * days, since / _UNKNOWN)
        scores = (counts * np.minimum(since / full_after, 1)).astype(np.float32)
        return ScoredRows(items, scores).within(allowed).best(most)

    def is_due(self, history: History, row: int) -> bool:
        """Returns whether the repeat days of an item that the user had are known and over."""
        events, rows = history.own_rows()
        last_us = int(history.time_us[events[rows == row]].max())
        days = float(self.days[row])
        return 0 < days <= (self.now_us - last_us) / DAY_US

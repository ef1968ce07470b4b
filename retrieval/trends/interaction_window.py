"""The recent interactions of a collection in memory, and what is counted from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.times import DAY_US
from retrieval.trends.trend_lists import NO_ITEMS, TrendItems, TrendLists

# Interactions that are kept, 32 bytes each.
MOST_ROWS = 1_000_000
# Length of the lists.
_MOST_LISTED, _MOST_RELATED = 1_000, 30
# As in training: a week-old interaction counts 1 / e, or one as old as a quarter of all the time.
TRENDING_DAYS = 7.0
# Newest visitors of an item whose newest interactions are counted.
_VISITORS, _EVENTS = 100, 30
# One visitor in common is chance.
_SUPPORT = 2
# How much the popularity of the other item counts against it: on Amazon Beauty and MovieLens, 0.25
# found more of the next items of users than a cosine (0.5).
_DISCOUNT = 0.25


class Row(NamedTuple):
    """An interaction. owner: 64-bit digest of the user or session. arrived_ms: When it was logged.

    Times are since 1970.
    """

    owner: int
    item_id: str
    time_us: int
    arrived_ms: int
    weight: float


class Trained(NamedTuple):
    """What the models of a snapshot counted already.

    newest_us: Newest interaction; 0 without models. kind_weights: By kind of interaction; other
    kinds are left out. If empty, every kind weighs 1. popular_days: After how many days an
    interaction counts 1 / e in the table of popularity; inf: all count the same.
    """

    newest_us: int = 0
    kind_weights: Mapping[str, float] = {}
    popular_days: float = math.inf


UNTRAINED = Trained()
_DTYPE = np.dtype(
    [
        ("owner", np.uint64),
        ("item", np.int32),
        ("time_us", np.int64),
        ("arrived_ms", np.int64),
        ("weight", np.float32),
    ]
)


class InteractionWindow:
    """Interactions in order of owner, then time; the same whatever the batches they came in.

    If there are more than the limit, only those of a half of the owners are kept, then of a
    quarter: which, their digests decide. So visits of one owner stay together.

    Args:
        limit: Largest number of interactions.

    scale: Interactions that one of the window stands for.
    """

    def __init__(self, limit: int = MOST_ROWS) -> None:
        self._limit = limit
        self._level = 0
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._rows = np.empty(0, _DTYPE)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def scale(self) -> int:
        """How many interactions each one stands for, 1 unless some owners were left out."""
        return 1 << self._level

    def add(self, rows: Sequence[Row]) -> set[str]:
        """Adds interactions, those of each owner in the order of the log; returns their items."""
        kept = [one for one in rows if self._samples(one.owner)]
        numbers = [self._number(one.item_id) for one in kept]
        added = np.array(
            [(one.owner, at, *one[2:]) for one, at in zip(kept, numbers, strict=True)], _DTYPE
        )
        added = added[np.lexsort((added["time_us"], added["owner"]))]
        self._rows = np.insert(self._rows, self._places(added), added)
        while len(self._rows) > self._limit:
            self._level += 1
            self._keep((self._rows["owner"] & np.uint64(self.scale - 1)) == 0)
        return {one.item_id for one in kept}

    def erase(self, upto_ms: Mapping[int, int]) -> set[str]:
        """Removes the interactions of owners that were logged up to a time; returns their items."""
        owners, erased = self._rows["owner"], np.zeros(len(self), np.bool_)
        for owner, ms in upto_ms.items():
            start = np.searchsorted(owners, np.uint64(owner))
            end = np.searchsorted(owners, np.uint64(owner), "right")
            erased[start:end] = self._rows["arrived_ms"][start:end] <= ms
        return self._remove(erased)

    def expire(self, before_ms: int) -> set[str]:
        """Removes the interactions that were logged before a time; returns their items."""
        return self._remove(self._rows["arrived_ms"] < before_ms)

    def most_visited(self, most: int) -> list[str]:
        """Returns the items with the most interactions, those with more first."""
        counts = np.bincount(self._rows["item"], minlength=len(self._names))
        return list(self._best(np.arange(len(counts)), counts, most).ids)

    def trends(self, trained: Trained) -> TrendLists:
        """Returns the lists that are the same for everyone."""
        time_us = self._rows["time_us"]
        newest_us = max(int(time_us.max(initial=0)), trained.newest_us)
        trending_days = TRENDING_DAYS
        if not trained.newest_us and len(time_us):
            span = float(newest_us - time_us.min()) / DAY_US
            trending_days = min(TRENDING_DAYS, span / 4) or math.inf
        since = time_us > trained.newest_us
        item, age = self._rows["item"][since], (newest_us - time_us[since]) / DAY_US
        weight = self._rows["weight"][since].astype(np.float64) * self.scale

        def top(days: float) -> TrendItems:
            scores = np.bincount(item, weight * np.exp(-age / days))
            return self._best(np.arange(len(scores)), scores, _MOST_LISTED)

        return TrendLists(
            newest_us,
            trained.newest_us,
            trending_days,
            trained.popular_days,
            top(trending_days),
            top(trained.popular_days),
        )

    def related(self, item_ids: Sequence[str]) -> dict[str, TrendItems]:
        """Returns what the visitors of items visited, too, by item; nothing without interactions.

            visitors of both / (visitors of the item ^ 0.5  interactions with the other ^ 0.25)

        Of each item, the newest 100 visitors count, with their newest 30 interactions.
        """
        rows, owners = self._rows, self._rows["owner"]
        counts = np.bincount(rows["item"], minlength=len(self._names))
        related: dict[str, TrendItems] = dict.fromkeys(item_ids, NO_ITEMS)
        wanted = np.array([self._numbers.get(one, -1) for one in item_ids], np.int64)
        visits = np.flatnonzero(np.isin(rows["item"], wanted[wanted >= 0]))
        visits = visits[np.lexsort((-rows["time_us"][visits], rows["item"][visits]))]
        items, starts = np.unique(rows["item"][visits], return_index=True)
        for number, found in zip(items.tolist(), np.split(visits, starts[1:]), strict=False):
            newest = np.unique(owners[found], return_index=True)[1]
            visitors = owners[found[np.sort(newest)[:_VISITORS]]]
            ends = np.searchsorted(owners, visitors, "right")
            begins = np.maximum(np.searchsorted(owners, visitors), ends - _EVENTS)
            own = np.repeat(np.arange(len(visitors)), ends - begins)
            at = np.arange(len(own)) - np.searchsorted(own, own) + begins[own]
            pairs = np.unique(own * len(self._names) + rows["item"][at]) % len(self._names)
            others, both = np.unique(pairs, return_counts=True)
            enough = (both >= _SUPPORT) & (others != number)
            others, both = others[enough], both[enough]
            scores = both / len(visitors) ** 0.5 / counts[others] ** _DISCOUNT
            related[self._names[number]] = self._best(others, scores, _MOST_RELATED)
        return related

    def _samples(self, owner: int) -> bool:
        return owner & (self.scale - 1) == 0

    def _number(self, item_id: str) -> int:
        number = self._numbers.setdefault(item_id, len(self._names))
        if number == len(self._names):
            self._names.append(item_id)
        return number

    def _remove(self, removed: NDArray[np.bool_]) -> set[str]:
        items = {self._names[one] for one in np.unique(self._rows["item"][removed])}
        if items:
            self._keep(~removed)
        return items

    def _keep(self, kept: NDArray[np.bool_]) -> None:
        """Keeps some rows, and the names of their items alone."""
        self._rows = self._rows[kept]
        used, numbers = np.unique(self._rows["item"], return_inverse=True)
        self._rows["item"] = numbers
        self._names = [self._names[one] for one in used]
        self._numbers = {name: number for number, name in enumerate(self._names)}

    def _places(self, added: NDArray[np.void]) -> NDArray[np.int64]:
        """Returns where to insert sorted rows: behind those with an equal time."""
        owners, times = self._rows["owner"], self._rows["time_us"]
        starts = np.searchsorted(owners, added["owner"])
        ends = np.searchsorted(owners, added["owner"], "right")
        within = [
            np.searchsorted(times[start:end], time_us, "right")
            for start, end, time_us in zip(starts, ends, added["time_us"], strict=True)
        ]
        return starts + np.array(within, np.int64)

    def _best(
        self, items: NDArray[np.integer], scores: NDArray[np.number], most: int
    ) -> TrendItems:
        """Returns the items with the highest scores above 0; of equal ones, the smaller ids."""
        rounded = scores.astype(np.float32)
        least = np.partition(rounded, -most)[-most] if len(rounded) > most else 0
        places = np.flatnonzero((rounded >= least) & (rounded > 0))
        scored = sorted(
            (-score, self._names[item])
            for item, score in zip(items[places], rounded[places].tolist(), strict=True)
        )
        best = scored[:most]
        return TrendItems(tuple(one for _, one in best), tuple(-score for score, _ in best))

"""Samples of searches and interactions, in bounded memory."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline import contract as c

MAX_ITEMS = 1_000
# Interactions needed per compared item; with fewer, the estimate is too noisy.
_INTERACTIONS_PER_ITEM = 10
_MIN_INTERACTIONS = 500


class SearchObservation(NamedTuple):
    """A sampled search.

    score: Score of its best hit; None without a hit or with a filter.
    vector: Query vector, (d,) float32; None without one.
    """

    mode: c.SearchMode
    score: float | None
    vector: NDArray[np.float32] | None


class Reservoir:
    """A uniform random sample of a stream.

    Args:
        most: Size of the sample, >= 1.

    Source: Vitter (1985), Random Sampling with a Reservoir, algorithm R.
    """

    def __init__(self, most: int) -> None:
        self.kept: list[SearchObservation] = []
        self.offered = 0
        self._most = most

    def offer(self, one: SearchObservation) -> None:
        """Adds an observation to the sample, with the probability of reservoir sampling."""
        self.offered += 1
        if len(self.kept) < self._most:
            self.kept.append(one)
        elif (place := random.randrange(self.offered)) < self._most:
            self.kept[place] = one


def stack_vectors(observations: Sequence[SearchObservation]) -> NDArray[np.float32]:
    """Returns the vectors of all observations that have one, (n, d)."""
    rows = [one.vector for one in observations if one.vector is not None]
    return np.stack(rows) if rows else np.empty((0, 0), np.float32)


def scores_by_mode(observations: Sequence[SearchObservation]) -> Mapping[c.SearchMode, list[float]]:
    """Returns the best scores by mode; scores of different modes are not comparable."""
    found: dict[c.SearchMode, list[float]] = {}
    for one in observations:
        if one.score is not None:
            found.setdefault(one.mode, []).append(one.score)
    return found


class ItemCounts:
    """Counts interactions with the items that were most popular when a snapshot was built.

    Args:
        ids: The most popular items, most popular first.
        counts: (n,) > 0, interactions with each of them.
        total: Interactions with all items.
        kind_weights: Weights by kind of interaction; other kinds weigh 1.
    """

    def __init__(
        self,
        ids: Sequence[str],
        counts: NDArray[np.float32],
        total: float,
        kind_weights: Mapping[str, float],
    ) -> None:
        self._before = counts.astype(np.float64)
        self._rest_before = max(0.0, total - float(self._before.sum()))
        self._places = {item_id: place for place, item_id in enumerate(ids)}
        self._weights = kind_weights
        self._now = np.zeros(len(self._before))
        self._rest_now = 0.0
        self._count = 0

    def add(self, interactions: Iterable[c.Interaction]) -> None:
        """Counts interactions with their own weight or the weight of their kind."""
        for one in interactions:
            weight = self._weights.get(one.kind, 1.0) if one.weight is None else one.weight
            place = self._places.get(one.item_id)
            if place is None:
                self._rest_now += weight
            else:
                self._now[place] += weight
            self._count += 1

    def popularity(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Returns the popularity of items at build time and now; the last number is for all others.

        The number of items is limited to a tenth of the number of interactions.

        Returns: None with fewer than 500 interactions, or if the snapshot learned from none.
        """
        items = min(len(self._before), self._count // _INTERACTIONS_PER_ITEM)
        if self._count < _MIN_INTERACTIONS or not items:
            return None
        before = np.append(self._before[:items], self._rest_before + self._before[items:].sum())
        now = np.append(self._now[:items], self._rest_now + self._now[items:].sum())
        return before, now

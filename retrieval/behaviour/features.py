"""Selects the candidates of a ranker and computes their features, in training and serving.

No age is counted from the time of a request: a snapshot may serve for years, and the ranker was
never trained on such ages. Ages are counted from the user's newest interaction, or from the newest
interaction of the training data if that is later (`newest_us`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.times import DAY_US
from retrieval.behaviour.blend import Generator, blend_contribution
from retrieval.behaviour.history import History

# Number of candidates from each source and from the blend.
_SOURCE_CANDIDATES = 40
_BLEND_CANDIDATES = 100
# Place of items that a source does not score.
_NO_PLACE = 500.0
# Tables that features read in addition to those of the sources: popularity, also decayed over 7, 15
# and 100 days; repeat rate and repeat days; the day of an item's first interaction since 1970.
FIRST_DAY = "first_day"
TRENDS = ("trending", "popularity_15d", "popularity_100d")
ITEM_TABLES = ("popularity", *TRENDS, "repeat_rate", "repeat_days", FIRST_DAY)
_ITEM_FEATURES = ("popularity", *(f"{one}.trend" for one in TRENDS), "repeat_rate", "repeat_days")
_USER_FEATURES = (
    "events",
    "items",
    "visits",
    "newest_visit",
    "visit_events",
    "visit_days",
    "idle_days",
)
_PAIR_FEATURES = ("item_age",)
_REPEAT_FEATURES = ("had", "had_visits", "had_ago", "had_days", "had_every", "due", "due_as_others")


class FeatureSource(NamedTuple):
    """A generator whose scores are features.

    name: Letters, digits, "_" and ".". weight: Weight in the blend; 0 if it is not part of it.
    """

    name: str
    generator: Generator
    weight: float = 0.0


class CandidateFeatures(NamedTuple):
    """The candidates of a ranker, with their features.

    numbers: (n,) int64, item numbers, ascending. values: (features, n) float32.
    blended: (items,) float32, scores of the blend for all items.
    """

    numbers: NDArray[np.int64]
    values: NDArray[np.float32]
    blended: NDArray[np.float32]


class FeatureExtractor:
    """Computes the features of a user's candidates.

    sources: The sources. names: Names of the features, in their order.

    Args:
        sources: At least one of them is part of the blend.
        tables: (items,) float32 each, the available ones of ITEM_TABLES; others count as 0.
        repeats: Whether items that the user had may be shown again.
        newest_us: Time that ages are counted from, unless the user's newest interaction is later.
            If 0, ages are always counted from the user's newest interaction, for data in which the
            last interactions of each user were held out.
    """

    def __init__(
        self,
        sources: Sequence[FeatureSource],
        tables: Mapping[str, NDArray[np.float32]],
        *,
        repeats: bool,
        newest_us: int = 0,
    ) -> None:
        self.sources = tuple(sources)
        self._repeats = repeats
        self._newest_us = newest_us
        popular = tables["popularity"]
        zeros = np.zeros_like(popular)
        self._repeat_days = tables.get("repeat_days", zeros)
        self._first_day = tables.get(FIRST_DAY, zeros)
        self._item_rows = np.array(
            [
                np.log1p(_relative_to_mean(popular)),
                *(_trend(tables.get(one, zeros), popular) for one in TRENDS),
                tables.get("repeat_rate", zeros),
                self._repeat_days,
            ],
            np.float32,
        )
        self.names = feature_names([one.name for one in sources], repeats=repeats)

    def extract(self, history: History, allowed: NDArray[np.bool_]) -> CandidateFeatures:
        """Returns the candidates of a user with their features.

        Args:
            history: At least one interaction.
            allowed: (items,) bool, which items may be candidates.
        """
        shares = np.array(
            [
                blend_contribution(one.generator, history, repeats=self._repeats)
                for one in self.sources
            ]
        )
        blended = np.zeros(shares.shape[1], np.float32)
        for one, share in zip(self.sources, shares, strict=True):
            if one.weight:
                blended += np.float32(one.weight) * share
        numbers = _candidates(shares, blended, allowed)
        scores = np.vstack([shares[:, numbers], blended[numbers]])
        rows = [scores, _places(scores), self._item_rows[:, numbers]]
        last = float(history.time_us[0]) / DAY_US
        now = max(last, self._newest_us / DAY_US)
        first = self._first_day[numbers]
        rows.append(np.where(first > 0, np.float32(last) - first, 0)[None])
        rows.append(np.repeat(_user_row(history, now)[:, None], len(numbers), axis=1))
        if self._repeats:
            rows.append(_repeat_rows(history, numbers, self._repeat_days[numbers], now))
        return CandidateFeatures(numbers, np.concatenate(rows).astype(np.float32), blended)


def feature_names(sources: Sequence[str], *, repeats: bool) -> tuple[str, ...]:
    """Returns the names of all features in their order."""
    scored = (*sources, "blend")
    return (
        *(f"{one}.score" for one in scored),
        *(f"{one}.place" for one in scored),
        *_ITEM_FEATURES,
        *_PAIR_FEATURES,
        *_USER_FEATURES,
        *(_REPEAT_FEATURES if repeats else ()),
    )


def _relative_to_mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divides values by the mean of those above 0, which grows with the amount of data."""
    known = values[values > 0]
    return values / known.mean() if len(known) else values


def _trend(recent: NDArray[np.float32], popular: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns log(share of recent interactions / share of all); 0 if equal or unknown."""
    if not recent.any():
        return np.zeros_like(popular)
    small = 1e-3 / max(int(np.count_nonzero(popular)), 1)
    now = recent / np.float32(recent.sum()) + small
    ever = popular / np.maximum(popular.sum(), np.float32(small)) + small
    trend: NDArray[np.float32] = np.log(now / ever).astype(np.float32)
    return trend


def _candidates(
    shares: NDArray[np.float32], blended: NDArray[np.float32], allowed: NDArray[np.bool_]
) -> NDArray[np.int64]:
    found = np.zeros(len(allowed), np.bool_)
    for scores in shares:
        found[_best(scores, allowed, _SOURCE_CANDIDATES)] = True
    found[_best(blended, allowed, _BLEND_CANDIDATES)] = True
    return np.flatnonzero(found)


def _best(scores: NDArray[np.float32], allowed: NDArray[np.bool_], most: int) -> NDArray[np.int64]:
    """Returns the best allowed items that have a score, in no order."""
    # Few items have a score: a source scores only its 300 best items.
    places = np.flatnonzero(scores)
    places = places[allowed[places]]
    if len(places) > most:
        places = places[np.argpartition(-scores[places], most)[:most]]
    return places


def _places(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the place of each candidate from 0 in every row of scores."""
    order = np.argsort(-scores, axis=1, kind="stable")
    places = np.empty(scores.shape, np.float32)
    np.put_along_axis(places, order, np.arange(scores.shape[1], dtype=np.float32)[None], axis=1)
    places[scores <= 0] = _NO_PLACE
    return places


def _visits(time_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the visit of each interaction, from 0 for the newest; one moment is one visit."""
    return np.cumsum(np.diff(time_us, prepend=time_us[0]) != 0)


def _user_row(history: History, now: float) -> NDArray[np.float32]:
    """Returns the features of the user: (7,)."""
    visits = _visits(history.time_us)
    count, last = int(visits[-1]) + 1, float(history.time_us[0]) / DAY_US
    span = last - float(history.time_us[-1]) / DAY_US
    return np.array(
        [
            len(visits),
            len(np.unique(history.items)),
            count,
            np.searchsorted(visits, 0, side="right"),
            len(visits) / count,
            span / max(count - 1, 1),
            now - last,
        ],
        np.float32,
    )


def _repeat_rows(
    history: History, numbers: NDArray[np.int64], usual: NDArray[np.float32], now: float
) -> NDArray[np.float32]:
    """Returns the features of the candidates that the user had: (7, n), 0 for other candidates.

    Args:
        usual: (n,) days after which other users have the items again; 0 if unknown.
        now: Days since 1970.
    """
    visits = _visits(history.time_us)
    items, newest, index = np.unique(history.items, return_index=True, return_inverse=True)
    pairs = np.unique(index * (len(visits) + 1) + visits) // (len(visits) + 1)
    times = np.bincount(pairs, minlength=len(items))
    oldest = len(index) - 1 - np.unique(index[::-1], return_index=True)[1]
    days = history.time_us / DAY_US
    ago = now - days[newest]
    every = (days[newest] - days[oldest]) / np.maximum(times - 1, 1)
    table = np.zeros((5, len(items) + 1))
    table[:, :-1] = (
        np.bincount(index, history.weight, len(items)),
        times,
        visits[newest] + 1,
        ago,
        every,
    )
    at = np.minimum(np.searchsorted(items, numbers), len(items) - 1)
    found = table[:, np.where(items[at] == numbers, at, len(items))]
    had = found[1] > 0
    due = np.where(had & (found[4] > 0), found[3] / np.maximum(found[4], 1e-3), 0)
    others = np.where(had & (usual > 0), found[3] / np.maximum(usual, 1e-3), 0)
    return np.vstack([found, due, others]).astype(np.float32)

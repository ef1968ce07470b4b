"""What a ranker looks at: features of the items that come into question for a user.

Training and serving run this module, so that they see the same. Nothing is counted from the moment
of a request: a snapshot serves for hours or for years, and what was never so old in training would
be judged by no experience. Ages are counted from the user's own newest interaction, or from the
newest of all that was learned where that is later (`newest_us`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.times import DAY_US
from retrieval.behaviour.blend import Generator, blend_contribution
from retrieval.behaviour.history import History

# Candidates: so many of the best of each source, and of the blend.
_OF_SOURCE = 40
_OF_BLEND = 100
# Place of what a source does not know.
_NO_PLACE = 500.0
# Tables that features read beside those of the sources: popularity, and decayed over 7, 15 and 100
# days; what is bought again, and how soon; the first day that an item was had, in days since 1970.
FIRST_DAY = "first_day"
TRENDS = ("trending", "popularity_15d", "popularity_100d")
ITEM_TABLES = ("popularity", *TRENDS, "repeat_rate", "repeat_days", FIRST_DAY)
_OF_ITEMS = ("popularity", *(f"{one}.trend" for one in TRENDS), "repeat_rate", "repeat_days")
_OF_USERS = ("events", "items", "visits", "newest_visit", "visit_events", "visit_days", "idle_days")
_OF_BOTH = ("item_age",)
_HAD = ("had", "had_visits", "had_ago", "had_days", "had_every", "due", "due_as_others")


class FeatureSource(NamedTuple):
    """A generator whose scores are features.

    name: Of letters, digits, "_" and ".". weight: In the blend; 0: it is no part of it.
    """

    name: str
    generator: Generator
    weight: float = 0.0


class CandidateFeatures(NamedTuple):
    """What there is to rank.

    numbers: (n,) int64, of the candidates, ascending. values: (features, n) float32.
    blended: (items,) float32, the blend of all items.
    """

    numbers: NDArray[np.int64]
    values: NDArray[np.float32]
    blended: NDArray[np.float32]


class FeatureExtractor:
    """Makes the features of a user's candidates.

    Args:
        sources: At least one of them part of the blend.
        tables: (items,) float32 each, those of ITEM_TABLES that there are; others count as 0.
        repeats: What a user had may come again.
        newest_us: Moment that ages are counted from unless the user's newest interaction is later;
            0: that is it always, as where the last interactions of each user were held out.

    sources: As given. names: Of the features, in their order.
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
        none = np.zeros_like(popular)
        self._repeat_days = tables.get("repeat_days", none)
        self._first_day = tables.get(FIRST_DAY, none)
        self._of_items = np.array(
            [
                np.log1p(_by_mean(popular)),
                *(_trend(tables.get(one, none), popular) for one in TRENDS),
                tables.get("repeat_rate", none),
                self._repeat_days,
            ],
            np.float32,
        )
        self.names = feature_names([one.name for one in sources], repeats=repeats)

    def of(self, history: History, allowed: NDArray[np.bool_]) -> CandidateFeatures:
        """Returns the candidates of a user with a history.

        Args:
            allowed: (items,) bool, what may be one.
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
        rows = [scores, _places(scores), self._of_items[:, numbers]]
        last = float(history.time_us[0]) / DAY_US
        now = max(last, self._newest_us / DAY_US)
        first = self._first_day[numbers]
        rows.append(np.where(first > 0, np.float32(last) - first, 0)[None])
        rows.append(np.repeat(_of_user(history, now)[:, None], len(numbers), axis=1))
        if self._repeats:
            rows.append(_had(history, numbers, self._repeat_days[numbers], now))
        return CandidateFeatures(numbers, np.concatenate(rows).astype(np.float32), blended)


def feature_names(sources: Sequence[str], *, repeats: bool) -> tuple[str, ...]:
    """Returns the names of all features, in their order."""
    scored = (*sources, "blend")
    return (
        *(f"{one}.score" for one in scored),
        *(f"{one}.place" for one in scored),
        *_OF_ITEMS,
        *_OF_BOTH,
        *_OF_USERS,
        *(_HAD if repeats else ()),
    )


def _by_mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns values by the mean of those above 0: of more data they would be larger."""
    known = values[values > 0]
    return values / known.mean() if len(known) else values


def _trend(recent: NDArray[np.float32], popular: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the share of the recent ones by that of all, as a logarithm; 0: as ever, or
    unknown."""
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
        found[_best(scores, allowed, _OF_SOURCE)] = True
    found[_best(blended, allowed, _OF_BLEND)] = True
    return np.flatnonzero(found)


def _best(scores: NDArray[np.float32], allowed: NDArray[np.bool_], most: int) -> NDArray[np.int64]:
    """Returns the best that are allowed and have a score, in no order."""
    # Few have one: a source knows its 300 best.
    places = np.flatnonzero(scores)
    places = places[allowed[places]]
    if len(places) > most:
        places = places[np.argpartition(-scores[places], most)[:most]]
    return places


def _places(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns places among the candidates from 0, by each row of scores."""
    order = np.argsort(-scores, axis=1, kind="stable")
    places = np.empty(scores.shape, np.float32)
    np.put_along_axis(places, order, np.arange(scores.shape[1], dtype=np.float32)[None], axis=1)
    places[scores <= 0] = _NO_PLACE
    return places


def _visits(time_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers the visits of interactions, newest first, from 0; those of one moment are one."""
    return np.cumsum(np.diff(time_us, prepend=time_us[0]) != 0)


def _of_user(history: History, now: float) -> NDArray[np.float32]:
    """Returns features of the user: (7,)."""
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


def _had(
    history: History, numbers: NDArray[np.int64], usual: NDArray[np.float32], now: float
) -> NDArray[np.float32]:
    """Returns features of what the user had of the candidates: (7, n); 0: nothing.

    Args:
        usual: (n,) days after which others have the items again; 0: unknown.
        now: Days since 1970.
    """
    visits = _visits(history.time_us)
    items, newest, of = np.unique(history.items, return_index=True, return_inverse=True)
    pairs = np.unique(of * (len(visits) + 1) + visits) // (len(visits) + 1)
    times = np.bincount(pairs, minlength=len(items))
    oldest = len(of) - 1 - np.unique(of[::-1], return_index=True)[1]
    days = history.time_us / DAY_US
    ago = now - days[newest]
    every = (days[newest] - days[oldest]) / np.maximum(times - 1, 1)
    table = np.zeros((5, len(items) + 1))
    table[:, :-1] = (
        np.bincount(of, history.weight, len(items)),
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

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
from retrieval.behaviour.blend import (
    DEPTH,
    Generator,
    on_common_scale,
    without_history,
)
from retrieval.behaviour.history import History
from retrieval.behaviour.segments import SEGMENT_LIFTS
from retrieval.protocols.scored_rows import ScoredRows, union

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
_ITEM_COLUMNS = len(_ITEM_FEATURES) + len(_PAIR_FEATURES)
_REPEAT_FEATURES = ("had", "had_visits", "had_ago", "had_days", "had_every", "due", "due_as_others")


class UserCandidates(NamedTuple):
    """The candidates that generators found for a user, with the features of the items.

    scored: The best items of each generator. rows: (n,) int64, all of these items, ascending.
    columns: (features, n) float32, see `ItemStatistics.of`.
    """

    scored: Sequence[ScoredRows]
    rows: NDArray[np.int64]
    columns: NDArray[np.float32]


class CandidateFeatures(NamedTuple):
    """The candidates of a ranker, with their features, and what their sources found besides.

    found: (u,) int64, rows of the items that the sources found, ascending. blended: (u,) float32,
    their scores in the blend; 0 for those that it does not score. places: (n,) int64, which of them
    are candidates. values: (features, n) float32.
    """

    found: NDArray[np.int64]
    blended: NDArray[np.float32]
    places: NDArray[np.int64]
    values: NDArray[np.float32]

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows of the candidates: (n,), ascending."""
        return self.found[self.places]


class ItemStatistics(NamedTuple):
    """The features of items, by row.

    repeat_days, first_day: (items,) float32. features: (items, 6) float32; those of an item are
    next to each other, since a list reads a few hundred items. lifts: (items, segments) float32,
    see `segments`.
    """

    repeat_days: NDArray[np.float32]
    first_day: NDArray[np.float32]
    features: NDArray[np.float32]
    lifts: NDArray[np.float32]

    @classmethod
    def of_tables(cls, tables: Mapping[str, NDArray[np.float32]]) -> ItemStatistics:
        """Returns the features of all items.

        Args:
            tables: (items,) float32 each, the available ones of ITEM_TABLES; others count as 0.
                Also SEGMENT_LIFTS, (items, segments), if there are any.
        """
        popular = tables["popularity"]
        zeros = np.zeros_like(popular)
        repeat_days = tables.get("repeat_days", zeros)
        columns = [
            np.log1p(_relative_to_mean(popular)),
            *(_trend(tables.get(one, zeros), popular) for one in TRENDS),
            tables.get("repeat_rate", zeros),
            repeat_days,
        ]
        features = np.stack(columns, axis=1, dtype=np.float32)
        lifts = tables.get(SEGMENT_LIFTS, zeros[:, None][:, :0])
        return cls(repeat_days, tables.get(FIRST_DAY, zeros), features, lifts)

    def at(self, rows: NDArray[np.int32]) -> ItemStatistics:
        """Returns the features of some items, as a copy."""
        return ItemStatistics(*(one[rows] for one in self))

    def of(
        self, rows: NDArray[np.int64], history: History, newest_us: int, *, repeats: bool
    ) -> NDArray[np.float32]:
        """Returns the features of items, and of the pairs of user and item: (features, n) float32.

        Args:
            rows: (n,).
            history: At least one interaction.
            newest_us: See `FeatureSpec`.
            repeats: Whether to add the features of items that the user had.
        """
        last, first = float(history.time_us[0]) / DAY_US, self.first_day[rows]
        parts = [self.features[rows].T, np.where(first > 0, np.float32(last) - first, 0)[None]]
        if repeats:
            now = _now_days(history, newest_us)
            parts.append(_repeat_rows(history, rows, self.repeat_days[rows], now))
        if self.lifts.shape[1]:
            parts.append(self.lift(rows, history)[None])
        return np.concatenate(parts).astype(np.float32)

    def lift(self, rows: NDArray[np.int64], history: History) -> NDArray[np.float32]:
        """Returns the sums of the lifts of items in the segments of a user: (rows,) float32."""
        found: NDArray[np.float32] = self.lifts[rows][:, history.segments].sum(axis=1)
        return found


class FeatureSpec(NamedTuple):
    """The features of a ranker.

    sources: Names of the sources: letters, digits, "_" and ".". weights: Weight of each in the
    blend, 0 if it is not part of it; at least one is. repeats: Whether items that the user had may
    be shown again. newest_us: Time that ages are counted from, unless the user's newest interaction
    is later. If 0, ages are always counted from the user's newest interaction, for data in which
    the last interactions of each user were held out. segments: Whether users have any.
    """

    sources: Sequence[str]
    weights: Sequence[float]
    repeats: bool
    newest_us: int = 0
    segments: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in their order."""
        names = feature_names(self.sources, repeats=self.repeats)
        return (*names, SEGMENT_LIFTS) if self.segments else names

    def features(self, found: UserCandidates, history: History) -> CandidateFeatures:
        """Returns the candidates of a user with their features.

        Args:
            history: At least one interaction.
        """
        rows, sources = found.rows, len(found.scored)
        shares = on_common_scale(found.scored)
        scores = np.zeros((sources + 1, len(rows)), np.float32)
        is_candidate = np.zeros(len(rows), np.bool_)
        for own, share, weight in zip(scores, shares, self.weights, strict=False):
            places = rows.searchsorted(share.rows)
            own[places] = share.scores
            best = ScoredRows(places, share.scores).best(_SOURCE_CANDIDATES)
            is_candidate[best.rows] = True
            if weight:
                scores[-1] += np.float32(weight) * own
        blended = scores[-1]
        scored = np.flatnonzero(blended > 0)
        best = ScoredRows(scored, blended.take(scored)).best(_BLEND_CANDIDATES)
        is_candidate[best.rows] = True
        places = np.flatnonzero(is_candidate)
        # By item, place and user, then by item again if it may come again, or by segment.
        parts = np.cumsum([sources + 1, sources + 1, _ITEM_COLUMNS, len(_USER_FEATURES)])
        values = np.empty((parts[-1] + len(found.columns) - _ITEM_COLUMNS, len(places)), np.float32)
        of_sources, of_places, of_items, of_user, of_repeats = np.split(values, parts)
        scores.take(places, axis=1, out=of_sources)
        of_places[:] = _places(of_sources)
        known = found.columns.take(places, axis=1)
        of_items[:], of_repeats[:] = known[:_ITEM_COLUMNS], known[_ITEM_COLUMNS:]
        of_user[:] = _user_row(history, _now_days(history, self.newest_us))[:, None]
        return CandidateFeatures(rows, blended, places, values)


class FeatureExtractor(NamedTuple):
    """Finds the candidates of a user, and computes their features.

    spec: The features. generators: The sources, in the order of the spec. statistics: Features of
    the items.
    """

    spec: FeatureSpec
    generators: Sequence[Generator]
    statistics: ItemStatistics

    def extract(self, history: History, allowed: NDArray[np.bool_]) -> CandidateFeatures:
        """Returns the candidates of a user with their features.

        Args:
            history: At least one interaction.
            allowed: (items,) bool, which items may be candidates.
        """
        return self.spec.features(self.find(history, allowed, DEPTH), history)

    def find(self, history: History, allowed: NDArray[np.bool_], most: int) -> UserCandidates:
        """Returns the best `most` items of each source; see `extract`."""
        repeats = self.spec.repeats
        shown = allowed if repeats else without_history(allowed, history)
        scored = [one.best(history, shown, most) for one in self.generators]
        rows = union(scored)
        columns = self.statistics.of(rows, history, self.spec.newest_us, repeats=repeats)
        return UserCandidates(scored, rows, columns)


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


def _places(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the place of each candidate from 0 in every row of scores."""
    order = np.argsort(-scores, axis=1, kind="stable")
    places = np.empty(scores.shape, np.float32)
    np.put_along_axis(places, order, np.arange(scores.shape[1], dtype=np.float32)[None], axis=1)
    places[scores <= 0] = _NO_PLACE
    return places


def _now_days(history: History, newest_us: int) -> float:
    """Returns the time that ages are counted from, in days since 1970."""
    return max(int(history.time_us[0]), newest_us) / DAY_US


def _user_row(history: History, now: float) -> NDArray[np.float32]:
    """Returns the features of the user: (7,)."""
    visits = history.visits()
    count, last = int(visits[-1]) + 1, float(history.time_us[0]) / DAY_US
    span = last - float(history.time_us[-1]) / DAY_US
    return np.array(
        [
            len(visits),
            len(set(history.items.tolist())),
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
    events, had_rows = history.own_rows()
    if not len(events):
        return np.zeros((7, len(numbers)), np.float32)
    visits = history.visits()[events]
    items, newest, index = np.unique(had_rows, return_index=True, return_inverse=True)
    pairs = np.unique(index * (len(history.items) + 1) + visits) // (len(history.items) + 1)
    times = np.bincount(pairs, minlength=len(items))
    oldest = len(index) - 1 - np.unique(index[::-1], return_index=True)[1]
    days = history.time_us[events] / DAY_US
    ago = now - days[newest]
    every = (days[newest] - days[oldest]) / np.maximum(times - 1, 1)
    table = np.zeros((5, len(items) + 1))
    table[:, :-1] = (
        np.bincount(index, history.weight[events], len(items)),
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

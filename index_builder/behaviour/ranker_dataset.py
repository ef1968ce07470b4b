"""Lists that a ranker learns from: candidates of users, and which of them they had afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_builder.behaviour.candidate_generators import CandidateGenerator
from index_builder.behaviour.evaluation_task import EvaluationTask
from index_builder.behaviour.popularity import popularity, trending
from index_builder.behaviour.repurchase_rates import measure_repurchases as repeats_of
from index_builder.interactions.records import Interactions
from nearline.times import DAY_US
from retrieval.behaviour.features import FIRST_DAY, FeatureExtractor, FeatureSource
from retrieval.behaviour.generator_spec import source_name
from retrieval.behaviour.tables import POPULARITY, REPEAT_DAYS, REPEAT_RATE, TRENDING

# Their scores are features whatever blends, where they are trained: those that validation on the
# shared data sets did not miss are left out, each costs 0.2 ms of a request.
_ALWAYS = {
    False: {
        *("session tau=5", "session directed tau=3", "item_to_item tau=8"),
        *("ease tau=8 floor=0.05", "als plain", "als newest=20", "popular days=15"),
    },
    True: {
        *("buy_again tau=inf popularity=0.3", "buy_again tau=5 popularity=0.6"),
        *("ease ridge days=60", "ease plain", "item_to_item tau=8", "als plain", "popular days=15"),
    },
}
# Of so many users lists are made, in each window: a few milliseconds and 50 kB each.
_MOST_LISTS = 2_000


class RankerDataset(NamedTuple):
    """Candidates of u users, n in all, one user after another, each user's by item number.

    All candidates, not those alone that are hard to tell from what was wanted: with every fourth of
    those far down, trees learned that what is far down is wanted four times as often as it is
    (recall@20 of 0.213 instead of 0.270 on the shared shop data).

    names: Of the features. sizes: (u,) int64, candidates of each user; at least one.
    values: (n, features) float32. wanted: (n,) bool, what the user had afterwards.
    asked: (u,) int64, how many items that were, candidates or not.
    """

    names: tuple[str, ...]
    sizes: NDArray[np.int64]
    values: NDArray[np.float32]
    wanted: NDArray[np.bool_]
    asked: NDArray[np.int64]

    def useful(self) -> RankerDataset:
        """Returns the lists on which anything was wanted: the others teach no order."""
        of = np.repeat(np.arange(len(self.sizes)), self.sizes)
        some = np.bincount(of, self.wanted, len(self.sizes)) > 0
        kept = some[of]
        return RankerDataset(
            self.names, self.sizes[some], self.values[kept], self.wanted[kept], self.asked[some]
        )

    def and_those(self, others: RankerDataset) -> RankerDataset:
        """Returns these lists and others, of the same features."""
        assert self.names == others.names, "lists of one data set have the same features"
        return RankerDataset(
            self.names,
            np.concatenate([self.sizes, others.sizes]),
            np.concatenate([self.values, others.values]),
            np.concatenate([self.wanted, others.wanted]),
            np.concatenate([self.asked, others.asked]),
        )


def feature_generators(
    candidates: Sequence[CandidateGenerator], weights: Mapping[str, float], *, repeats: bool
) -> list[CandidateGenerator]:
    """Returns the candidates whose scores are features: always the same few, and those that blend.

    Args:
        weights: Of the blend, by name of a candidate.
        repeats: What a user had may come again.
    """
    asked = [one for one in candidates if repeats or not one.only_repeats]
    return [one for one in asked if one.name in weights or one.name in _ALWAYS[repeats]]


def build_features(
    rows: Interactions,
    candidates: Sequence[CandidateGenerator],
    weights: Mapping[str, float],
    *,
    repeats: bool,
    since_newest: bool,
) -> FeatureExtractor:
    """Makes the features of what was trained on some rows, as a snapshot of them would.

    Args:
        weights, repeats: See `feature_generators`.
        since_newest: Ages are counted from the newest of all rows; else from the user's newest.
    """
    sources = [
        FeatureSource(
            source_name(one.model, one.settings), one.generator, weights.get(one.name, 0.0)
        )
        for one in feature_generators(candidates, weights, repeats=repeats)
    ]
    newest_us = int(rows.time_us.max()) if since_newest else 0
    return FeatureExtractor(sources, item_tables(rows), repeats=repeats, newest_us=newest_us)


def item_tables(rows: Interactions) -> dict[str, NDArray[np.float32]]:
    """Returns what features read of items: `retrieval.behaviour.features.ITEM_TABLES`."""
    again = repeats_of(rows)
    return {
        POPULARITY: popularity(rows),
        TRENDING: trending(rows),
        f"{POPULARITY}_15d": popularity(rows, 15.0),
        f"{POPULARITY}_100d": popularity(rows, 100.0),
        REPEAT_RATE: again.rate,
        REPEAT_DAYS: again.days,
        FIRST_DAY: first_days(rows),
    }


def first_days(rows: Interactions) -> NDArray[np.float32]:
    """Returns when each item was had first, (items,) float32 in days since 1970; 0: never."""
    first = np.full(len(rows.items), np.inf)
    np.minimum.at(first, rows.item, rows.time_us / DAY_US)
    return np.where(np.isfinite(first), first, 0).astype(np.float32)


def build_dataset(features: FeatureExtractor, task: EvaluationTask, seed: int) -> RankerDataset:
    """Makes the lists of a task's users, of many users of some that are drawn."""
    users = np.arange(len(task.users))
    if len(users) > _MOST_LISTS:
        rng = np.random.default_rng(seed)
        users = np.sort(rng.choice(len(users), _MOST_LISTS, replace=False))
    sizes, values, wanted, asked = [0], [np.empty((0, len(features.names)), np.float32)], [], []
    for user in users.tolist():
        looked = features.of(task.histories[user], task.candidates)
        if len(looked.numbers):
            sizes.append(len(looked.numbers))
            values.append(looked.values.T)
            wanted.append(np.isin(looked.numbers, task.relevant[user]))
            asked.append(len(task.relevant[user]))
    return RankerDataset(
        features.names,
        np.array(sizes[1:], np.int64),
        np.concatenate(values),
        np.concatenate([np.empty(0, np.bool_), *wanted]),
        np.array(asked, np.int64),
    )

"""The lists that a ranker is trained on: candidates for users, labelled by later interactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_builder.behaviour.candidate_generators import CandidateGenerator
from index_builder.behaviour.evaluation_task import EvaluationTask
from index_builder.behaviour.popularity import popularity, trending
from index_builder.behaviour.repurchase_rates import measure_repurchases
from index_builder.interactions.records import Interactions
from index_builder.interactions.segments import segment_lifts
from nearline.times import DAY_US
from retrieval.behaviour.features import FIRST_DAY, FeatureExtractor, FeatureSpec, ItemStatistics
from retrieval.behaviour.generator_spec import source_name
from retrieval.behaviour.segments import SEGMENT_LIFTS
from retrieval.behaviour.tables import POPULARITY, REPEAT_DAYS, REPEAT_RATE, TRENDING

# The scores of these are features if they are trained, whether or not they are blended. Features
# that validation on the shared data sets did not miss are left out: each adds 0.2 ms to a request.
_FEATURES = {
    False: {
        *("session tau=5", "session directed tau=3", "item_to_item tau=8"),
        *("ease tau=8 floor=0.05", "als plain", "als newest=20", "popular days=15"),
        "sequence plain",
    },
    True: {
        *("buy_again tau=inf popularity=0.3", "buy_again tau=5 popularity=0.6"),
        *("ease ridge days=60", "ease plain", "item_to_item tau=8", "als plain", "popular days=15"),
        "sequence plain",
    },
}
# Lists that are kept of a window, 50 kB each, and users who are looked at for them, a few
# milliseconds each. Where each user has a single later item, six lists of seven do not have it:
# with 2,000 users, no ranker was better than the blend on the shared reviews; with 8,000, NDCG@10
# rose from 0.0646 to 0.0686.
_MAX_LISTS, _MAX_USERS = 2_000, 8_000


class RankerDataset(NamedTuple):
    """Candidates for u users, n in total, user by user and then in order of item number.

    All candidates are included, not only those that are hard to tell from relevant ones: with every
    fourth of the low-ranked ones, the trees learned that low-ranked items are relevant four times
    as often as they are (recall@20 of 0.213 instead of 0.270 on the shared shop data).

    names: Names of the features.
    sizes: (u,) int64, number of candidates of each user, at least one.
    values: (n, features) float32.
    labels: (n,) bool, whether the user interacted with the item later.
    relevant: (u,) int64, number of items the user interacted with later, candidates or not.
    users: (u,) int32, number of the user of each list.
    missed: (m,) int32, numbers of further users, none of whose candidates was relevant. No order
        can be learned from their lists, and each order has an NDCG of 0.
    """

    names: tuple[str, ...]
    sizes: NDArray[np.int64]
    values: NDArray[np.float32]
    labels: NDArray[np.bool_]
    relevant: NDArray[np.int64]
    users: NDArray[np.int32]
    missed: NDArray[np.int32]

    def concatenate(self, other: RankerDataset) -> RankerDataset:
        """Returns the lists of both data sets, which have the same features."""
        assert self.names == other.names, "lists of one data set have the same features"
        return RankerDataset(
            self.names,
            np.concatenate([self.sizes, other.sizes]),
            np.concatenate([self.values, other.values]),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.relevant, other.relevant]),
            np.concatenate([self.users, other.users]),
            np.concatenate([self.missed, other.missed]),
        )


def feature_generators(
    candidates: Sequence[CandidateGenerator], weights: Mapping[str, float], *, repeats: bool
) -> list[CandidateGenerator]:
    """Returns the candidates whose scores are features: a fixed few, and the parts of the blend.

    Args:
        weights: Weights of the blend, by name of a candidate.
        repeats: Whether items of the history may be recommended again.
    """
    usable = [one for one in candidates if repeats or not one.only_repeats]
    return [one for one in usable if one.name in weights or one.name in _FEATURES[repeats]]


def build_features(
    rows: Interactions,
    candidates: Sequence[CandidateGenerator],
    weights: Mapping[str, float],
    *,
    repeats: bool,
    since_newest: bool,
) -> FeatureExtractor:
    """Returns the features of generators trained on some rows, as a snapshot of these rows has
    them.

    Args:
        weights, repeats: See `feature_generators`.
        since_newest: Whether ages are measured from the newest of all rows; if not, from the user's
            newest.
    """
    sources = feature_generators(candidates, weights, repeats=repeats)
    spec = FeatureSpec(
        [source_name(one.model, one.settings) for one in sources],
        [weights.get(one.name, 0.0) for one in sources],
        repeats,
        int(rows.time_us.max()) if since_newest else 0,
        segments=bool(rows.segments),
    )
    statistics = ItemStatistics.of_tables(item_tables(rows))
    return FeatureExtractor(spec, [one.generator for one in sources], statistics)


def item_tables(rows: Interactions) -> dict[str, NDArray[np.float32]]:
    """Returns the features of items: ITEM_TABLES of `features`, and SEGMENT_LIFTS."""
    repurchases = measure_repurchases(rows)
    return {
        POPULARITY: popularity(rows),
        TRENDING: trending(rows),
        f"{POPULARITY}_15d": popularity(rows, 15.0),
        f"{POPULARITY}_100d": popularity(rows, 100.0),
        REPEAT_RATE: repurchases.rate,
        REPEAT_DAYS: repurchases.days,
        FIRST_DAY: first_days(rows),
        **({SEGMENT_LIFTS: segment_lifts(rows)} if rows.segments else {}),
    }


def first_days(rows: Interactions) -> NDArray[np.float32]:
    """Returns when each item first occurred: (items,) float32 days since 1970; 0 if never."""
    first = np.full(len(rows.items), np.inf)
    np.minimum.at(first, rows.item, rows.time_us / DAY_US)
    return np.where(np.isfinite(first), first, 0).astype(np.float32)


def build_dataset(features: FeatureExtractor, task: EvaluationTask, seed: int) -> RankerDataset:
    """Returns the lists of a task's users, in random order; of some, if there are many."""
    chosen = np.random.default_rng(seed).permutation(len(task.users))[:_MAX_USERS].tolist()
    names = features.spec.names
    sizes, values, relevant = [0], [np.empty((0, len(names)), np.float32)], []
    labels: list[NDArray[np.bool_]] = []
    users: list[int] = []
    missed: list[int] = []
    for user in chosen:
        if len(labels) == _MAX_LISTS:
            break
        candidates = features.extract(task.histories[user], task.candidates)
        of_user = np.isin(candidates.rows, task.relevant[user])
        if not of_user.any():
            missed.append(user)
            continue
        sizes.append(len(of_user))
        values.append(candidates.values.T)
        labels.append(of_user)
        relevant.append(len(task.relevant[user]))
        users.append(user)
    return RankerDataset(
        names,
        np.array(sizes[1:], np.int64),
        np.concatenate(values),
        np.concatenate([np.empty(0, np.bool_), *labels]),
        np.array(relevant, np.int64),
        task.users[np.array(users, np.int64)],
        task.users[np.array(missed, np.int64)],
    )

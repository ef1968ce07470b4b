"""Trains rankers, and chooses on three windows whether one serves and with which weight.

    window         2 earlier      1 earlier      validation     (serving)
    trial          train          train          evaluated
    second         train          evaluated      train
    third          evaluated      train          train
    final trees    train          train          train          serve, if the others were better
The generators of a window know the interactions before the window; its labels are the interactions
in the window. The blend that rankers are compared with was chosen on validation alone, so the two
other windows judge both alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_builder.behaviour.candidate_generators import CandidateGenerator, train_candidates
from index_builder.behaviour.evaluation_task import make_task, only_known_items
from index_builder.behaviour.lambdamart import LambdaMartOptions, train_trees
from index_builder.behaviour.ranker_dataset import RankerDataset, build_dataset, build_features
from index_builder.behaviour.training_cost import LISTS_S, ranker_seconds
from index_builder.evaluation.bootstrap import paired_interval
from index_builder.execution.build_device import CPU_DEVICE, BuildDevice
from index_builder.interactions.records import Interactions
from index_builder.interactions.splits import Split
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.ranker import Ranker, RankerGenerator, combine_scores
from retrieval.behaviour.sequences import SequenceModel
from retrieval.behaviour.trees import Trees, read_trees

# Windows to train on and be evaluated on, including the validation window.
WINDOWS = 3
# With fewer lists, nothing learned generalises, and no gain is significant.
MIN_LISTS = 100
# A ranker serves if it gained something with a probability of 0.9: the lower end of an interval of
# this level. By validation alone, rankers were refused that gained 0.005 to 0.011 on the test part
# of the films, and 0.002 on that of the reviews.
_LEVEL = 0.8
# Weights of the blend and of the ranker: the ranker alone, or both added.
_WEIGHTS = ((0.0, 1.0), (1.0, 0.5), (1.0, 1.0), (1.0, 2.0), (1.0, 4.0))


class TrainedRanker(NamedTuple):
    """A ranker that was trained and evaluated.

    card: Without sources and features if the ranker does not serve.
    text: LightGBM's text of the trees; empty if the ranker does not serve.
    trial: The text of the trees that have not seen validation; empty if the ranker does not serve.
    """

    card: snapshot_pb2.RankerCard
    text: str
    trial: str = ""

    def ranker(
        self,
        rows: Interactions,
        candidates: Sequence[CandidateGenerator],
        weights: Mapping[str, float],
        *,
        repeats: bool,
    ) -> RankerGenerator:
        """Returns the ranker over generators trained on other rows."""
        card = self.card
        features = build_features(
            rows, candidates, weights, repeats=repeats, since_newest=card.since_newest
        )
        trees = read_trees(self.text)
        ranker = Ranker(features.spec, trees, card.blend_weight, card.weight)
        return RankerGenerator(ranker, features)


def fit_rankers(
    windows: Sequence[Split],
    trial: Sequence[CandidateGenerator],
    weights: Mapping[bool, Mapping[str, float]],
    split_name: str,
    k: int,
    seed: int,
    done: Callable[[float], None] = lambda seconds: None,
    device: BuildDevice = CPU_DEVICE,
    sequences: Sequence[SequenceModel | None] = (),
) -> Mapping[bool, TrainedRanker]:
    """Trains and evaluates rankers for lists without and with repeats.

    Args:
        windows: The validation split, and earlier ones of the same kind.
        trial: Candidates trained on the interactions before the first window.
        weights: Weights of the blend, by whether items of the history may be recommended again;
            without an entry, no ranker is trained.
        split_name: Name of the split.
        k: Length of each list.
        done: Called with the seconds that finished parts were estimated to take.
        device: Trains the factors.
        sequences: The model of order of each window. Optional.
    Returns: Rankers by the same key; without an entry if there is too little to learn from.
    """
    tasks = {
        repeats: [
            make_task(one, repeats=repeats, only_known=only_known_items(split_name))
            for one in windows
        ]
        for repeats in weights
    }
    trainable = [
        repeats
        for repeats, of_windows in tasks.items()
        if len(of_windows) == WINDOWS and min(len(one.users) for one in of_windows) >= MIN_LISTS
    ]
    lists: dict[bool, list[RankerDataset]] = {repeats: [] for repeats in trainable}
    for number, window in enumerate(windows if trainable else ()):
        candidates = trial
        if number:
            candidates = train_candidates(
                window.train,
                repeats=any(trainable),
                seed=seed,
                device=device,
                done=done,
                sequences=sequences[number] if sequences else None,
            )
        for repeats in trainable:
            features = build_features(
                window.train,
                candidates,
                weights[repeats],
                repeats=repeats,
                since_newest=_since_newest(split_name),
            )
            lists[repeats].append(build_dataset(features, tasks[repeats][number], seed))
        done(LISTS_S)
    fitted = {}
    for repeats, of_windows in lists.items():
        if min(len(one.sizes) for one in of_windows) >= MIN_LISTS:
            part_s = ranker_seconds(windows[0].train) / (WINDOWS + 1)
            fitted[repeats] = _fit(of_windows, split_name, k, seed, partial(done, part_s))
    return fitted


def _since_newest(split_name: str) -> bool:
    """Returns whether time passes between the known interactions and the relevant ones.

    In other splits, the relevant interactions follow the user's own last one.
    """
    return split_name.startswith("time:")


def _fit(
    lists: Sequence[RankerDataset], split_name: str, k: int, seed: int, done: Callable[[], None]
) -> TrainedRanker:
    """Trains and evaluates a ranker.

    Args:
        lists: Lists of the validation window, and of the two windows before it.
        done: Called after each of four trainings.
    """
    options = LambdaMartOptions()
    trials = []
    for held_out in range(len(lists)):
        trials.append(_trial(lists, held_out, options, k, seed))
        done()
    blend_ndcg = np.concatenate([one.blend_ndcg for one in trials])
    ndcg_by = {pair: np.concatenate([one.ndcg[pair] for one in trials]) for pair in _WEIGHTS}
    users = np.concatenate([np.append(one.users, one.missed) for one in lists])
    blend_ndcg = mean_of_users(blend_ndcg, users)
    ndcg_by = {pair: mean_of_users(ndcg, users) for pair, ndcg in ndcg_by.items()}
    gains = {
        pair: paired_interval(ndcg, blend_ndcg, seed=seed, level=_LEVEL)
        for pair, ndcg in ndcg_by.items()
    }
    # The surest gain, not the largest mean, because differences between the means are due to
    # chance.
    best = max(gains, key=lambda pair: gains[pair].low)
    gain = paired_interval(ndcg_by[best], blend_ndcg, seed=seed)
    card = snapshot_pb2.RankerCard(
        kept=gains[best].low > 0,
        settings=options.as_text(),
        since_newest=_since_newest(split_name),
        blend_weight=best[0],
        weight=best[1],
        validation_ndcg=ndcg_by[best].mean(),
        blend_ndcg=blend_ndcg.mean(),
        gain_low=gain.low,
        gain_high=gain.high,
        validation_users=len(blend_ndcg),
    )
    if not card.kept:
        return TrainedRanker(card, "")
    whole = _joined(lists)
    trees, text = _train(whole, options, seed)
    done()
    card.trees, card.features[:] = len(trees.leaves), trees.names
    card.lists, card.positives = len(whole.sizes), int(whole.labels.sum())
    return TrainedRanker(card, text, trials[0].text)


class _Trial(NamedTuple):
    """Trees that were judged on lists that they had not seen.

    text: The trees. blend_ndcg: NDCG of each list by the blend. ndcg: By pairs of weights.
    """

    text: str
    blend_ndcg: NDArray[np.float64]
    ndcg: Mapping[tuple[float, float], NDArray[np.float64]]


def _trial(
    lists: Sequence[RankerDataset], number: int, options: LambdaMartOptions, k: int, seed: int
) -> _Trial:
    """Trains on all lists but those with a number, and judges the trees on these."""
    judged = lists[number]
    trees, text = _train(_joined([*lists[:number], *lists[number + 1 :]]), options, seed)
    blended = judged.values[:, judged.names.index("blend.score")]
    scores = trees.scores(np.ascontiguousarray(judged.values.T))
    ndcg = {
        pair: ndcg_of(judged, _combined_scores(judged, blended, scores, *pair), k)
        for pair in _WEIGHTS
    }
    return _Trial(text, ndcg_of(judged, blended, k), ndcg)


def mean_of_users(values: NDArray[np.float64], users: NDArray[np.int32]) -> NDArray[np.float64]:
    """Returns the mean of the lists of each user, whose gains resemble each other: (users,)."""
    _, of = np.unique(users, return_inverse=True)
    return np.bincount(of, values) / np.bincount(of)


def _joined(lists: Sequence[RankerDataset]) -> RankerDataset:
    return reduce(RankerDataset.concatenate, lists)


def _train(lists: RankerDataset, options: LambdaMartOptions, seed: int) -> tuple[Trees, str]:
    text = train_trees(lists.values, lists.labels, lists.sizes.tolist(), lists.names, options, seed)
    return read_trees(text), text


def _combined_scores(
    lists: RankerDataset,
    blend_scores: NDArray[np.float32],
    scores: NDArray[np.float64],
    blend_weight: float,
    weight: float,
) -> NDArray[np.float64]:
    """Returns the scores combined as a ranker does, user by user: (n,)."""
    stops = np.cumsum(lists.sizes)
    parts = [slice(stop - size, stop) for stop, size in zip(stops, lists.sizes, strict=True)]
    return np.concatenate(
        [combine_scores(blend_scores[at], scores[at], blend_weight, weight) for at in parts]
    )


def ndcg_of(
    lists: RankerDataset, scores: NDArray[np.float32] | NDArray[np.float64], k: int
) -> NDArray[np.float64]:
    """Returns the NDCG@k of each list, as defined by `recommendation_metrics.measure`.

    Those of the users in `missed` follow, and are 0. Relevant items that are not candidates count
    as missed. Ties are broken by item number.
    """
    of = np.repeat(np.arange(len(lists.sizes)), lists.sizes)
    order = np.lexsort((-scores, of))
    place = np.arange(len(of)) - np.repeat(np.cumsum(lists.sizes) - lists.sizes, lists.sizes)
    hits = lists.labels[order] & (place < k)
    gains = np.where(hits, 1 / np.log2(place + 2), 0)
    best = np.cumsum(1 / np.log2(np.arange(k) + 2))[np.minimum(lists.relevant, k) - 1]
    return np.concatenate(
        [np.bincount(of, gains, len(lists.sizes)) / best, np.zeros(len(lists.missed))]
    )

"""Whether a ranker serves a data set, and how much it counts: chosen on validation.

    window         2 earlier      1 earlier      validation     (what is to be served)
    first trees    learn          learn          are judged
    final trees                   learn          learn          serve, where the first were better
In each window generators know what came before it, and labels are what came in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_builder.behaviour.candidate_generators import CandidateGenerator, train_candidates
from index_builder.behaviour.ease import MOST_ITEMS
from index_builder.behaviour.evaluation_task import make_task, only_known_items
from index_builder.behaviour.lambdamart import LambdaMartOptions, train_trees, unavailable_reason
from index_builder.behaviour.ranker_dataset import RankerDataset, build_dataset, build_features
from index_builder.evaluation.bootstrap import paired_interval
from index_builder.interactions.records import Interactions
from index_builder.interactions.splits import Split
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.ranker import Ranker, combine_scores
from retrieval.behaviour.trees import Trees, read_trees

# Windows to learn from and be judged by, the one of the validation among them.
WINDOWS = 3
# Of fewer lists nothing is learned that holds for others, and no gain is told from chance.
LEAST_LISTS = 100
# EASE inverts so many rows in about half a minute (4,000 in 2.3 s), 20,000 in eight times as long,
# and each window needs two matrices.
MOST_INVERTED = 10_000
# What the blend and the ranker count together: the ranker alone, or beside the blend.
_SHARES = ((0.0, 1.0), (1.0, 0.5), (1.0, 1.0), (1.0, 2.0), (1.0, 4.0))


class TrainedRanker(NamedTuple):
    """A ranker that was trained and judged.

    card: Without its sources and features where it is not kept. text: LightGBM's text of the trees;
    empty: it is not kept.
    """

    card: snapshot_pb2.RankerCard
    text: str

    def ranker(
        self,
        rows: Interactions,
        candidates: Sequence[CandidateGenerator],
        weights: Mapping[str, float],
        *,
        repeats: bool,
    ) -> Ranker:
        """Makes the ranker of generators that were trained on other rows."""
        card = self.card
        features = build_features(
            rows, candidates, weights, repeats=repeats, since_newest=card.since_newest
        )
        return Ranker(features, read_trees(self.text), card.blend_weight, card.weight)


def obstacle(rows: Interactions) -> str:
    """Says why no ranker is trained on some rows on this machine; empty: nothing is in the way."""
    inverted = min(len(rows.items), len(rows.users))
    if len(rows.items) <= MOST_ITEMS and inverted > MOST_INVERTED:
        return (
            f"EASE would invert matrices of {inverted} rows for each of {WINDOWS} windows; to "
            f"{MOST_INVERTED} that is done"
        )
    return unavailable_reason()


def fit_rankers(
    windows: Sequence[Split],
    trial: Sequence[CandidateGenerator],
    weights: Mapping[bool, Mapping[str, float]],
    how: str,
    k: int,
    seed: int,
    advance: Callable[[int], None] = lambda steps: None,
) -> Mapping[bool, TrainedRanker]:
    """Trains rankers for lists without and with repeats, and judges them.

    Args:
        windows: The validation split, and earlier ones of the same kind. trial: Trained on what
            came before the first.
        weights: Of the blend, by whether what a user had may come again; what is missing there is
            not asked for.
        how: The split in words. k: Places of a list.
        advance: Told of steps done.
    Returns: By the same; nothing where there is too little to learn from.
    """
    tasks = {
        repeats: [
            make_task(one, repeats=repeats, only_known=only_known_items(how)) for one in windows
        ]
        for repeats in weights
    }
    enough = [
        repeats
        for repeats, of_windows in tasks.items()
        if len(of_windows) == WINDOWS and min(len(one.users) for one in of_windows) >= LEAST_LISTS
    ]
    lists: dict[bool, list[RankerDataset]] = {repeats: [] for repeats in enough}
    for number, window in enumerate(windows if enough else ()):
        candidates = trial
        if number:
            candidates = train_candidates(window.train, repeats=any(enough), seed=seed)
        for repeats in enough:
            features = build_features(
                window.train,
                candidates,
                weights[repeats],
                repeats=repeats,
                since_newest=_since_newest(how),
            )
            found = build_dataset(features, tasks[repeats][number], seed)
            lists[repeats].append(found if not number else found.useful())
        advance(1)
    fitted = {}
    for repeats, of_windows in lists.items():
        if min(len(one.useful().sizes) for one in of_windows) >= LEAST_LISTS:
            fitted[repeats] = _fit(of_windows, how, k, seed)
            advance(1)
    return fitted


def _since_newest(how: str) -> bool:
    """Returns whether time goes on between what is known and what is asked for.

    In other splits what is asked for follows the user's own last interaction.
    """
    return how.startswith("time:")


def _fit(lists: Sequence[RankerDataset], how: str, k: int, seed: int) -> TrainedRanker:
    """Trains and judges.

    Args:
        lists: Of the validation window, and of the two before, those with something wanted.
    """
    boosting = LambdaMartOptions()
    validation, before, earliest = lists
    blended = validation.values[:, validation.names.index("blend.score")]
    of_blend = ndcg_of(validation, blended, k)
    trees, _ = _grown(before.and_those(earliest), boosting, seed)
    scores = trees.scores(np.ascontiguousarray(validation.values.T))
    found = {
        shares: ndcg_of(validation, _joined(validation, blended, scores, *shares), k)
        for shares in _SHARES
    }
    gains = {shares: paired_interval(ndcg, of_blend, seed=seed) for shares, ndcg in found.items()}
    # That whose gain is surest, not that whose mean is largest: the difference of these is chance.
    best = max(gains, key=lambda shares: gains[shares].low)
    gain = gains[best]
    card = snapshot_pb2.RankerCard(
        kept=gain.low > 0,
        trees=len(trees.leaves),
        settings=boosting.told(),
        since_newest=_since_newest(how),
        blend_weight=best[0],
        weight=best[1],
        validation_ndcg=found[best].mean(),
        blend_ndcg=of_blend.mean(),
        gain_low=gain.low,
        gain_high=gain.high,
        validation_users=len(validation.sizes),
    )
    if not card.kept:
        return TrainedRanker(card, "")
    newest = validation.useful().and_those(before)
    trees, text = _grown(newest, boosting, seed)
    card.trees, card.features[:] = len(trees.leaves), trees.names
    card.lists, card.positives = len(newest.sizes), int(newest.wanted.sum())
    return TrainedRanker(card, text)


def _grown(lists: RankerDataset, boosting: LambdaMartOptions, seed: int) -> tuple[Trees, str]:
    text = train_trees(
        lists.values, lists.wanted, lists.sizes.tolist(), lists.names, boosting, seed
    )
    return read_trees(text), text


def _joined(
    lists: RankerDataset,
    blended: NDArray[np.float32],
    scores: NDArray[np.float64],
    blend_weight: float,
    weight: float,
) -> NDArray[np.float64]:
    """Adds the scores up as a ranker does, user by user: (n,)."""
    stops = np.cumsum(lists.sizes)
    parts = [slice(stop - size, stop) for stop, size in zip(stops, lists.sizes, strict=True)]
    return np.concatenate(
        [combine_scores(blended[at], scores[at], blend_weight, weight) for at in parts]
    )


def ndcg_of(
    lists: RankerDataset, scores: NDArray[np.float32] | NDArray[np.float64], k: int
) -> NDArray[np.float64]:
    """Returns NDCG of the k best candidates of each list, as `ranking_metrics.measure`: (u,).

    What was asked for and is no candidate counts as missed. Equal scores: lower numbers first.
    """
    of = np.repeat(np.arange(len(lists.sizes)), lists.sizes)
    order = np.lexsort((-scores, of))
    place = np.arange(len(of)) - np.repeat(np.cumsum(lists.sizes) - lists.sizes, lists.sizes)
    hits = lists.wanted[order] & (place < k)
    gains = np.where(hits, 1 / np.log2(place + 2), 0)
    best = np.cumsum(1 / np.log2(np.arange(k) + 2))[np.minimum(lists.asked, k) - 1]
    found: NDArray[np.float64] = np.bincount(of, gains, len(lists.sizes)) / best
    return found

"""Ranks the best candidates of the generators with boosted trees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.errors import SnapshotCorrupt
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.features import FeatureExtractor, FeatureSource
from retrieval.behaviour.generator_spec import build_generator, source_name
from retrieval.behaviour.history import History
from retrieval.behaviour.tables import BehaviourTables
from retrieval.behaviour.trees import Trees, read_trees

_TINY = 1e-9
# Keeps the last candidate above the items that are not ranked.
_STEP = 1e-3


class RankerGenerator(NamedTuple):
    """A ranker as a generator. allowed: (items,) bool, which items may be candidates."""

    ranker: Ranker
    allowed: NDArray[np.bool_]

    def scores(self, history: History) -> NDArray[np.float32]:
        """Scores all items: (items,) float32; see `Ranker.scores`."""
        return self.ranker.scores(history, self.allowed)


class Ranker(NamedTuple):
    """Ranks the candidates of a user; other items keep the score of the blend.

    blend_weight, weight: Weights of the blend's and the trees' scores. Both are standardized over a
        user's candidates and added up.
    """

    features: FeatureExtractor
    trees: Trees
    blend_weight: float
    weight: float

    def within(self, allowed: NDArray[np.bool_]) -> RankerGenerator:
        """Returns the ranker as a generator."""
        return RankerGenerator(self, allowed)

    def scores(self, history: History, allowed: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Scores all items: (items,) float32 >= 0, the candidates above all others.

        Args:
            history: At least one interaction.
            allowed: (items,) bool, which items may be candidates.
        """
        features = self.features.extract(history, allowed)
        total, numbers = features.blended, features.numbers
        if not len(numbers):
            return total
        ranked = combine_scores(
            total[numbers], self.trees.scores(features.values), self.blend_weight, self.weight
        )
        total[numbers] = 0
        above = total[allowed].max(initial=0) + _STEP
        total[numbers] = ranked - ranked.min() + above
        return total


def combine_scores(
    blended: NDArray[np.float32], scores: NDArray[np.float64], blend_weight: float, weight: float
) -> NDArray[np.float64]:
    """Adds up two standardized scores of one user's candidates: (n,) float64."""
    return blend_weight * _standardized(blended) + weight * _standardized(scores)


def _standardized(scores: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float64]:
    wide = scores.astype(np.float64)
    standardized: NDArray[np.float64] = (wide - wide.mean()) / (wide.std() + _TINY)
    return standardized


def build_rankers(
    card: snapshot_pb2.BehaviourCard, tables: BehaviourTables
) -> Mapping[bool, Ranker]:
    """Returns the rankers of a card, by whether items that the user had may be shown again.

    Raises: SnapshotCorrupt: a model cannot be read, or was trained on features other than those
        that this version computes.
    """
    newest_us = card.newest_time.ToMicroseconds()
    return {
        blend.repeats: _ranker_of(blend, tables, newest_us)
        for blend in card.blends
        if blend.ranker.kept
    }


def _ranker_of(blend: snapshot_pb2.BlendCard, tables: BehaviourTables, newest_us: int) -> Ranker:
    card = blend.ranker
    sources = [
        FeatureSource(
            source_name(part.model, part.settings), build_generator(part, tables), part.weight
        )
        for part in card.sources
    ]
    features = FeatureExtractor(
        sources,
        tables.popularity,
        repeats=blend.repeats,
        newest_us=newest_us if card.since_newest else 0,
    )
    kind = "with" if blend.repeats else "without"
    try:
        trees = read_trees(tables.rankers[blend.repeats])
    except ValueError as error:
        raise SnapshotCorrupt(
            f"the ranker of lists {kind} repeats cannot be read: {error}; rebuild the snapshot "
            "with its interactions"
        ) from error
    if not trees.names == tuple(card.features) == features.names:
        other = sorted(
            set(trees.names) ^ set(features.names) | set(card.features) ^ set(trees.names)
        )
        raise SnapshotCorrupt(
            f"the ranker of lists {kind} repeats was trained on {len(trees.names)} features, the "
            f"manifest names {len(card.features)}, this version of nearline computes "
            f"{len(features.names)} (not in all of them: {', '.join(other[:5]) or 'none'}); "
            "rebuild the snapshot with its interactions, or serve it with the version that "
            "built it"
        )
    return Ranker(features, trees, card.blend_weight, card.weight)

"""Ranks the best candidates of the generators with boosted trees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.errors import SnapshotCorrupt
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.blend import DEPTH
from retrieval.behaviour.features import FeatureExtractor, FeatureSpec, UserCandidates
from retrieval.behaviour.generator_spec import source_name
from retrieval.behaviour.history import History
from retrieval.behaviour.trees import Trees, read_trees
from retrieval.protocols.scored_rows import NO_ROWS, ScoredRows

_TINY = 1e-9
# Keeps the last candidate above the items that are not ranked.
_STEP = 1e-3


class Ranker(NamedTuple):
    """Ranks the candidates of a user; other items keep the score of the blend.

    blend_weight, weight: Weights of the blend's and the trees' scores. Both are standardized over a
        user's candidates and added up.
    """

    spec: FeatureSpec
    trees: Trees
    blend_weight: float
    weight: float

    def scores(self, found: UserCandidates, history: History) -> ScoredRows:
        """Returns the scores of items, all positive, the candidates above the others.

        Args:
            found: The best items of each source.
            history: At least one interaction.
        """
        rows, blended, places, values = self.spec.features(found, history)
        if not len(places):
            return NO_ROWS
        ranked = combine_scores(
            blended.take(places), self.trees.scores(values), self.blend_weight, self.weight
        )
        scores = blended.copy()
        scores[places] = 0
        above = scores.max() + _STEP
        scores[places] = ranked - ranked.min() + above
        return ScoredRows(rows, scores).positive()


class RankerGenerator(NamedTuple):
    """A ranker with its sources, as a generator."""

    ranker: Ranker
    extractor: FeatureExtractor

    def best(self, history: History, allowed: NDArray[np.bool_], most: int) -> ScoredRows:
        """Returns the best allowed items; see `Generator`."""
        found = self.extractor.find(history, allowed, DEPTH)
        return self.ranker.scores(found, history).best(most)


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
    card: snapshot_pb2.BehaviourCard, texts: Mapping[bool, str]
) -> Mapping[bool, Ranker]:
    """Returns the rankers of a card, by whether items that the user had may be shown again.

    Args:
        texts: The trees of each, in LightGBM's text format.
    Raises: SnapshotCorrupt: a model cannot be read, or was trained on features other than those
        that this version computes.
    """
    return {
        blend.repeats: _ranker_of(blend.ranker, feature_spec(card, blend), texts[blend.repeats])
        for blend in card.blends
        if blend.ranker.kept
    }


def feature_spec(card: snapshot_pb2.BehaviourCard, blend: snapshot_pb2.BlendCard) -> FeatureSpec:
    """Returns the features of the ranker of a blend."""
    parts, newest_us = blend.ranker.sources, card.newest_time.ToMicroseconds()
    return FeatureSpec(
        [source_name(part.model, part.settings) for part in parts],
        [part.weight for part in parts],
        blend.repeats,
        newest_us if blend.ranker.since_newest else 0,
        segments=bool(card.segments),
    )


def _ranker_of(card: snapshot_pb2.RankerCard, spec: FeatureSpec, text: str) -> Ranker:
    kind = "with" if spec.repeats else "without"
    try:
        trees = read_trees(text)
    except ValueError as error:
        raise SnapshotCorrupt(
            f"the ranker of lists {kind} repeats cannot be read: {error}; rebuild the snapshot "
            "with its interactions"
        ) from error
    if not trees.names == tuple(card.features) == spec.names:
        other = sorted(set(trees.names) ^ set(spec.names) | set(card.features) ^ set(trees.names))
        raise SnapshotCorrupt(
            f"the ranker of lists {kind} repeats was trained on {len(trees.names)} features, the "
            f"manifest names {len(card.features)}, this version of nearline computes "
            f"{len(spec.names)} (not in all of them: {', '.join(other[:5]) or 'none'}); "
            "rebuild the snapshot with its interactions, or serve it with the version that "
            "built it"
        )
    return Ranker(spec, trees, card.blend_weight, card.weight)

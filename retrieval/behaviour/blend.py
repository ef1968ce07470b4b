"""Blends the scores of several generators into one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.behaviour.history import History

# Number of best items of a generator that are put on a common scale.
DEPTH = 300
_LEAST, _MOST = -2.0, 6.0
_TINY = 1e-9


class Generator(Protocol):
    """Scores all items for a user."""

    def scores(self, history: History) -> NDArray[np.float32]:
        """Returns (items,) float32, 0 for items that it does not score."""
        ...


class WeightedGenerator(NamedTuple):
    """A generator and its weight in a blend."""

    generator: Generator
    weight: float = 1.0


class Blend(NamedTuple):
    """Adds up the scores of generators, each on a scale of its own best items.

    The scores of a generator's 300 best items that the user may be shown become
    (s - mean) / deviation, clipped to -2..6, plus 2. Items that a generator does not score get 0,
    as its worst items do. (With 0 for the mean, items that no generator scores ranked above items
    that one scores low: 0.1281 instead of 0.1311 on the validation part of ml-latest-small.) On
    held-out data, a blend of three generators scored 0.1215, the best of them 0.106, and the best
    rank fusion 0.106.

    parts: The generators. repeats: Whether items that the user had may be shown again.
    """

    parts: Sequence[WeightedGenerator]
    repeats: bool = False

    def scores(self, history: History) -> NDArray[np.float32]:
        """Scores all items: (items,) float32, 0 for items that may not be shown again."""
        total: NDArray[np.float32] | None = None
        for generator, weight in self.parts:
            scaled = np.float32(weight) * blend_contribution(
                generator, history, repeats=self.repeats
            )
            total = scaled if total is None else total + scaled
        assert total is not None, "a blend has at least one part"
        return total


def blend_contribution(
    generator: Generator, history: History, *, repeats: bool
) -> NDArray[np.float32]:
    """Returns the part of a generator in a blend at weight 1: (items,) float32."""
    scores = generator.scores(history)
    if not repeats:
        scores = scores.copy()
        scores[history.items] = 0
    return on_common_scale(scores)


def on_common_scale(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales the best positive scores to mean 2 and deviation 1; see `Blend`."""
    places = np.flatnonzero(scores > 0)
    if len(places) > DEPTH:
        places = places[np.argpartition(-scores[places], DEPTH)[:DEPTH]]
    scaled = np.zeros_like(scores)
    if len(places) > 1:
        best = scores[places]
        z = (best - best.mean()) / (best.std() + _TINY)
        scaled[places] = np.clip(z, _LEAST, _MOST) - _LEAST
    return scaled

"""Discounts popularity among the best items of a ranking: of nearly equal ones, the rarer wins.

Generators predict what a user has next, and popular items are likely for everyone. So they also
stand high in the lists of items that they have little to do with. The discount is a correction of
finished scores, as in "popularity-opportunity bias" (Zhu et al. 2021): it needs no training, works
for every kind of score, and costs the same for any size of catalogue.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

# The best items that are reordered. With more, rare items of low scores could rise to the top.
WINDOW = 100
_Number = TypeVar("_Number", np.int32, np.int64)


def popularity_levels(counts: NDArray[np.float32] | NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns how far each item is above mean popularity, in standard deviations: (items,) float32.

    This is log(1 + count), minus its mean and divided by its deviation over the items with
    interactions; 0 if it is negative, or if all these items are equally popular. Below the mean,
    differences are no reason to prefer an item: the rarest ones would rise, about which least is
    known.

    Args:
        counts: (items,) >= 0, interactions with each item.
    """
    logs = np.log1p(counts.astype(np.float64))
    known = logs[counts > 0]
    if not len(known) or known.min() == known.max():
        return np.zeros(len(counts), np.float32)
    levels: NDArray[np.float32] = np.maximum((logs - known.mean()) / known.std(), 0).astype("f4")
    return levels


def discount_popularity(
    numbers: NDArray[_Number],
    scores: NDArray[np.float32],
    levels: NDArray[np.float32],
    debias: float,
) -> tuple[NDArray[_Number], NDArray[np.float32]]:
    """Reorders the first `WINDOW` items of a ranking by their discounted scores.

        score - debias x (deviation of the scores) x (level of popularity)
    At 1, a standard deviation of popularity counts as much as one of the scores. The discounted
    scores are shifted so that the lowest is the lowest score before; the items that follow remain
    below. Items with equal scores are in order of number.

    Args:
        numbers: (n,) item numbers, best first. scores: (n,), descending.
        levels: (n,) float32, of these items; see `popularity_levels`.
        debias: 0..1; 0 returns the ranking unchanged.
    """
    if not debias or len(numbers) < 2:
        return numbers, scores
    head, values = numbers[:WINDOW], scores[:WINDOW].astype(np.float64)
    reduced = values - debias * values.std() * levels[:WINDOW]
    order = np.lexsort((head, -reduced))
    shifted = reduced[order] - reduced[order[-1]] + values.min()
    return (
        np.concatenate((head[order], numbers[WINDOW:])),
        np.concatenate((shifted.astype(scores.dtype), scores[WINDOW:])),
    )

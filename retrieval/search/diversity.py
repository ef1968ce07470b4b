"""Lists that do not repeat themselves: maximal marginal relevance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Hits that a diverse list is chosen from, per hit wanted, and at least.
_POOL_PER_HIT = 4
_LEAST_POOL = 50


def pool_size(k: int) -> int:
    """Returns how many of the best hits a diverse list of k is chosen from."""
    return max(_LEAST_POOL, _POOL_PER_HIT * k)


def diverse_order(
    scores: NDArray[np.float64], vectors: NDArray[np.float32], k: int, diversity: float
) -> list[int]:
    """Chooses hits one by one, each by its score less its likeness to those chosen before.

    Args:
        scores: (n,) best first.
        vectors: (n, d) of the hits.
        k: Hits wanted.
        diversity: 0..1: weight of the likeness; 0 keeps the order.
    Returns: Places of at most k hits, in the order chosen.
    Source: Carbonell and Goldstein 1998, "The Use of MMR": argmax (1 - w) s(d) - w max cos(d, c)
        over the chosen c; s is the score divided by the best one, so that w means the same for
        cosines, BM25 and fused scores.
    """
    if len(scores) == 0:
        return []
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(norms > 0, norms, 1)
    top = float(np.abs(scores).max())
    relevance = scores / top if top > 0 else scores
    likeness = np.full(len(scores), -np.inf)
    left = np.ones(len(scores), bool)
    chosen: list[int] = []
    while len(chosen) < min(k, len(scores)):
        if chosen:
            likeness = np.maximum(likeness, unit @ unit[chosen[-1]])
        penalty = likeness if chosen else np.zeros(len(scores))
        gain = np.where(left, (1 - diversity) * relevance - diversity * penalty, -np.inf)
        # The first of equal ones: the better hit.
        best = int(np.argmax(gain))
        left[best] = False
        chosen.append(best)
    return chosen

"""Diverse result lists by maximal marginal relevance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Size of the pool from which a diverse list is selected: per requested hit, and the minimum.
_POOL_PER_HIT = 4
_MIN_POOL = 50


def pool_size(k: int) -> int:
    """Returns how many of the best hits a diverse list of k hits is selected from."""
    return max(_MIN_POOL, _POOL_PER_HIT * k)


def diverse_order(
    scores: NDArray[np.float64], vectors: NDArray[np.float32], k: int, diversity: float
) -> list[int]:
    """Selects hits one by one, by score minus similarity to the hits selected before.

    `Selection.take_diverse` in `retrieval.recommend` does the same for lists with quotas.

    Args:
        scores: (n,) best first.
        vectors: (n, d) of the hits.
        k: Hits wanted.
        diversity: Weight of the similarity, 0..1; 0 keeps the order.
    Returns: Positions of at most k hits, in the order of selection.
    Source: Carbonell and Goldstein 1998, "The Use of MMR": argmax (1 - w) s(d) - w max cos(d, c)
        over the selected c; s is the score divided by the best one, so that w means the same for
        cosines, BM25 and fused scores.
    """
    if len(scores) == 0:
        return []
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(norms > 0, norms, 1)
    top = float(np.abs(scores).max())
    relevance = scores / top if top > 0 else scores
    similarity = np.full(len(scores), -np.inf)
    available = np.ones(len(scores), bool)
    selected: list[int] = []
    while len(selected) < min(k, len(scores)):
        if selected:
            similarity = np.maximum(similarity, unit @ unit[selected[-1]])
        penalty = similarity if selected else np.zeros(len(scores))
        gain = np.where(available, (1 - diversity) * relevance - diversity * penalty, -np.inf)
        # Among equal gains, the first is the better hit.
        best = int(np.argmax(gain))
        available[best] = False
        selected.append(best)
    return selected

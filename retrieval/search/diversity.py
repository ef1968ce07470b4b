"""Diverse lists by maximal marginal relevance, for searches and recommendations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.protocols.compute_threads import Stopped

# Comparisons of two vectors that one request may need, over all its queries. They take 0.1 s of one
# core with 384 dimensions, and 0.5 s with 1,024.
MAX_COMPARISONS = 1 << 22
# Size of the pool from which a diverse list is selected: per requested hit, and the minimum.
_POOL_PER_HIT = 4
_MIN_POOL = 50


def diverse_depth(k: int, queries: int = 1) -> int:
    """Returns how many hits of each list are selected for diversity; the others follow by score.

    Args:
        k: Hits wanted per query.
        queries: Queries of the request, which share `MAX_COMPARISONS`: one query gets at most 1,024
            diverse hits, each of 1,024 queries at most 32.
    """
    return max(1, min(k, math.isqrt(MAX_COMPARISONS // (_POOL_PER_HIT * queries))))


def pool_size(k: int) -> int:
    """Returns how many of the best hits k diverse hits are selected from."""
    return max(_MIN_POOL, _POOL_PER_HIT * k)


def diverse_order(
    scores: NDArray[np.float64],
    vectors: NDArray[np.float32],
    k: int,
    diversity: float,
    *,
    before: NDArray[np.float32] | None = None,
    accepts: Callable[[int], bool] = lambda place: True,
    stopped: Stopped = lambda: False,
) -> list[int]:
    """Selects entries one by one, by score minus similarity to the entries selected before.

    The time grows with n (k + m) d: limit n and k so that it stays within `MAX_COMPARISONS`.

    Args:
        scores: (n,) best first.
        vectors: (n, d) of the entries; all zeros if unknown, which counts as similar to nothing.
        k: Entries wanted.
        diversity: Weight of the similarity, 0..1; 0 keeps the order.
        before: (m, d) vectors of entries that precede the list. Optional.
        accepts: Called with the position of each choice; False skips it.
        stopped: Returns whether the result is no longer needed; the selection then ends early.
    Returns: Positions of at most k entries, in the order of selection.
    Source: Carbonell and Goldstein 1998, "The Use of MMR": argmax (1 - w) s(d) - w max cos(d, c)
        over the selected c; s is the score divided by the best one, so that w means the same for
        cosines, BM25 and fused scores.
    """
    if len(scores) == 0:
        return []
    unit = _unit_rows(vectors)
    top = float(np.abs(scores).max())
    gains = (1 - diversity) * (scores / top if top > 0 else scores)
    similarity: NDArray[np.floating[Any]] | None = None
    if before is not None and len(before):
        similarity = (unit @ _unit_rows(before).T).max(axis=1)
    selected: list[int] = []
    for _ in range(len(scores)):
        if len(selected) >= k or stopped():
            break
        penalized = gains if similarity is None else gains - diversity * similarity
        # Among equal gains, the first is the better entry.
        best = int(np.argmax(penalized))
        gains[best] = -np.inf
        if accepts(best):
            selected.append(best)
            to_best = unit @ unit[best]
            similarity = to_best if similarity is None else np.maximum(similarity, to_best)
    return selected


def _unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the rows at unit length; rows of zeros are unchanged."""
    norms: NDArray[np.float32] = np.linalg.norm(vectors, axis=1, keepdims=True)
    norms[norms == 0] = 1
    return vectors / norms

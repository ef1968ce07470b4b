"""What an engine found, put in the form that `VectorIndex` promises."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval.index.vectors.vector_index import Neighbours


def sort_ties(ids: NDArray[np.int64], scores: NDArray[np.float32]) -> Neighbours:
    """Puts equal scores in row order; faiss has sorted by score."""
    ties = scores[:, 1:] == scores[:, :-1]
    if ties.any():
        for row in np.flatnonzero(ties.any(axis=1)):
            order = np.lexsort((ids[row], -scores[row]))
            ids[row], scores[row] = ids[row][order], scores[row][order]
    return Neighbours(ids, scores)


def stack(parts: Sequence[Neighbours]) -> Neighbours:
    """Puts the answers to queries below each other, as wide as the widest."""
    width = max(part.ids.shape[1] for part in parts)
    parts = [fit_to_k(part, width) for part in parts]
    return Neighbours(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )


def fit_to_k(found: Neighbours, k: int) -> Neighbours:
    """Cuts or pads to k places."""
    n, have = found.ids.shape
    if have >= k:
        ids, scores = found.ids[:, :k], found.scores[:, :k]
        return Neighbours(ids, scores, full=bool(ids[:, -1].min() >= 0))
    ids = np.full((n, k), -1, np.int64)
    scores = np.full((n, k), -np.inf, np.float32)
    ids[:, :have], scores[:, :have] = found.ids, found.scores
    return Neighbours(ids, scores)

"""Selection of the best rows by score, and ranking of rows that are not in id order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

# Returns the document ids of rows.
NamesOf: TypeAlias = Callable[[NDArray[np.int64]], Sequence[str]]


def top_k_with_ties(
    rows: NDArray[np.int64], scores: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Returns the k best rows and all ties with the last of them, in no particular order."""
    if len(rows) <= k:
        return rows, scores
    kept = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
    return rows[kept], scores[kept]


def rank_rows(
    rows: NDArray[np.int64], scores: NDArray[np.float32], k: int, names_of: NamesOf
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Returns the k best by (score descending, document id ascending, row ascending).

    Args:
        rows, scores: (n,), in any order.
        k: Number of rows, >= 1.
        names_of: Called only if scores are equal.
    """
    rows, scores = top_k_with_ties(rows, scores, k)
    order = np.lexsort((rows, -scores))
    rows, scores = rows[order], scores[order]
    if (scores[1:] == scores[:-1]).any():
        # Rows of equal scores are in row order already.
        keys = zip((-scores).tolist(), names_of(rows), range(len(rows)), strict=True)
        places = [place for *_, place in sorted(keys)]
        rows, scores = rows[places], scores[places]
    return rows[:k], scores[:k]

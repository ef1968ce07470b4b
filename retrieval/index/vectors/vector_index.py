"""The interface of vector indexes, and operations on their results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

INDEX_FILE = "dense.faiss"


class SearchParams(NamedTuple):
    """Search widths; None uses the default of the index.

    exact: Compare with every stored vector; the widths then have no effect.
    """

    ef_search: int | None = None
    nprobe: int | None = None
    exact: bool = False


class Neighbours(NamedTuple):
    """The k best rows per query, by (score descending, row ascending).

    ids: (n, k) int64, -1 in empty places. scores: (n, k) float32, -inf in empty places.
    full: True if every query is known to have k rows; False if that is unknown.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    full: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexInfo:
    """The properties of an index.

    knobs: The fields of SearchParams that it supports.
    ef_search, nprobe: Default widths; without effect if the index does not support them.
    exact_together: Whether an exact search of many queries, without a bitmap, takes little more
    time than that of a few.
    """

    kind: str
    dim: int
    rows: int
    knobs: frozenset[str]
    ef_search: int = 64
    nprobe: int = 1
    exact_together: bool = False


class VectorIndex(Protocol):
    """Finds the rows with the best scores; larger is better.

    It knows nothing of document ids, payloads or caching, and does not build indexes.
    """

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        params: SearchParams = ...,
        allow: NDArray[np.uint8] | None = None,
        rows: NDArray[np.int64] | None = None,
    ) -> Neighbours:
        """Finds neighbours; blocks, and may be called from many threads at once.

        Args:
            queries: (n, d) float32, C order.
            k: Rows per query, >= 1.
            params: Widths.
            allow: Bitmap of the rows to consider, least significant bit first; None means all.
            rows: Optional; the rows of the bitmap, ascending, which saves decoding it.
        Raises: Unsupported: the index does not support a given parameter.
        """
        ...

    def reconstruct(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns stored vectors: (n, d) float32, with the precision of the index."""
        ...

    def describe(self) -> IndexInfo:
        """Returns the properties of the index."""
        ...

    def close(self) -> None:
        """Closes the file; no search may be running."""
        ...


def sort_ties(ids: NDArray[np.int64], scores: NDArray[np.float32]) -> Neighbours:
    """Sorts rows of equal score by row number; faiss has sorted by score."""
    ties = scores[:, 1:] == scores[:, :-1]
    if ties.any():
        for row in np.flatnonzero(ties.any(axis=1)):
            order = np.lexsort((ids[row], -scores[row]))
            ids[row], scores[row] = ids[row][order], scores[row][order]
    return Neighbours(ids, scores)


def stack(parts: Sequence[Neighbours]) -> Neighbours:
    """Concatenates the results of queries, padded to the largest k."""
    width = max(part.ids.shape[1] for part in parts)
    parts = [fit_to_k(part, width) for part in parts]
    return Neighbours(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )


def fit_to_k(found: Neighbours, k: int) -> Neighbours:
    """Cuts or pads results to k rows per query."""
    n, have = found.ids.shape
    if have >= k:
        ids, scores = found.ids[:, :k], found.scores[:, :k]
        return Neighbours(ids, scores, full=bool(ids[:, -1].min() >= 0))
    ids = np.full((n, k), -1, np.int64)
    scores = np.full((n, k), -np.inf, np.float32)
    ids[:, :have], scores[:, :have] = found.ids, found.scores
    return Neighbours(ids, scores)

"""Finds the few rows that may be among the best of a scan, by one product of matrices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Scores of so many queries with so many rows are held at once: 4 MiB.
_QUERIES = 16
_ROWS = 65_536
_BLOCK_ROWS = 64
# Half the distance from 1 to the next number.
_ROUNDING = float(np.finfo(np.float32).eps) / 2


class MatrixScan:
    """Looks at all vectors for several queries at once; may be used from several threads.

    A product of matrices rounds otherwise than one sum after the other does, so its scores are not
    given: only the rows that no rounding can keep from being among the best.

    Args:
        vectors: (rows, d) float32, finite; not copied.
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self._vectors = vectors
        squares = np.einsum("ij,ij->i", vectors, vectors)
        self._longest = float(np.sqrt(squares.max(initial=0.0)))

    def candidates(self, queries: NDArray[np.float32], k: int) -> list[NDArray[np.int64]]:
        """Gives per query the numbers of the rows that may be among its k best, ascending.

        All that may are there, ties at the edge included, and few others.

        Args:
            queries: (n, d) float32, finite.
            k: Rows wanted, 1..rows.
        Source: Higham (2002), Accuracy and Stability of Numerical Algorithms, 3.1: a sum of d
            products, in whatever order, is within d u |q| |x| of the true one; a product of
            matrices and a sum may so differ by twice that, and the k-th best of the one is within
            as much of the k-th best of the other.
        """
        found = []
        for at in range(0, len(queries), _QUERIES):
            found += self._of_block(queries[at : at + _QUERIES], k)
        return found

    def _of_block(self, queries: NDArray[np.float32], k: int) -> list[NDArray[np.int64]]:
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1)
        slack = 4 * (queries.shape[1] + 2) * _ROUNDING * lengths * self._longest
        least = np.full(len(queries), -np.inf)
        rows: list[list[NDArray[np.int64]]] = [[] for _ in queries]
        near: list[list[NDArray[np.float32]]] = [[] for _ in queries]
        for start in range(0, len(self._vectors), _ROWS):
            scores = queries @ self._vectors[start : start + _ROWS].T
            if scores.shape[1] >= k:
                least = np.maximum(least, _near_kth(scores, k) - slack)
            for number, row in enumerate(scores):
                good = np.flatnonzero(row >= np.float32(least[number]))
                rows[number].append(good + start)
                near[number].append(row[good])
        found = []
        for number, parts in enumerate(near):
            together = np.concatenate(parts)
            edge = np.partition(together, len(together) - k)[len(together) - k] - slack[number]
            found.append(np.concatenate(rows[number])[together >= np.float32(edge)])
        return found


def _near_kth(scores: NDArray[np.float32], k: int) -> NDArray[np.float64]:
    """Gives a number that the k-th best of each row is not below, and near it: (n,)."""
    n, rows = scores.shape
    width = max(1, min(_BLOCK_ROWS, rows // (4 * k)))
    whole = rows // width * width
    # Of k blocks, each has one as good as the worst of their best.
    best = scores[:, :whole].reshape(n, -1, width).max(axis=2) if width > 1 else scores
    return np.partition(best, best.shape[1] - k, axis=1)[:, best.shape[1] - k].astype(np.float64)

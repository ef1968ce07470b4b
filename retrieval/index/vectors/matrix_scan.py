"""Finds the few rows that may be among the best of a scan, by one product of matrices."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

MAX_QUERIES = 64
# Rows are looked at in blocks of so many numbers: 3 MiB. With 49,000 x 384 and 64 queries all of
# them take 30 ms, and 36 ms in blocks of four times as many.
_NUMBERS = 3 << 18
_BLOCK_ROWS = 64
# Half the distance from 1 to the next number.
_ROUNDING = float(np.finfo(np.float32).eps) / 2


class MatrixScan:
    """Looks at all vectors for several queries at once; may be used from several threads.

    A product of matrices rounds otherwise than one sum after the other does, so its scores are not
    given: only the rows that no rounding can keep from being among the best.

    Args:
        vectors: (rows, d) float32, finite; not copied. They may lie at any address: in a mapped
            file of FAISS they do, and numpy would copy them all for each product.
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self._vectors = vectors
        self._rows = max(1, _NUMBERS // vectors.shape[1])
        squares = [np.einsum("ij,ij->i", one, one).max() for one in self._blocks()]
        self._longest = float(np.sqrt(max(squares, default=0.0)))

    def candidates(self, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """Returns the numbers of the rows that may be among the k best of any query, ascending.

        All that may are there, ties at the edge included, and few others.

        Args:
            queries: (n, d) float32, finite, n <= MOST_QUERIES.
            k: Rows wanted, 1..rows.
        Source: Higham (2002), Accuracy and Stability of Numerical Algorithms, 3.1: a sum of d
            products, in whatever order, is within d u |q| |x| of the true one; a product of
            matrices and a sum may so differ by twice that, and the k-th best of the one is within
            as much of the k-th best of the other.
        """
        assert len(queries) <= MAX_QUERIES
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1)
        slack = 4 * (queries.shape[1] + 2) * _ROUNDING * lengths * self._longest
        least = np.full(len(queries), -np.inf)
        rows, kept = [], []
        for number, block in enumerate(self._blocks()):
            scores = queries @ block.T
            # After 1, 2, 4, 8 … blocks: in between few rows come that are no better than those.
            if number & (number + 1) == 0 and scores.shape[1] >= k:
                least = np.maximum(least, _near_kth(scores, k) - slack)
            good = _reach(scores, least)
            rows.append(good + number * self._rows)
            kept.append(scores[:, good])
        # The k best of each query are among those kept, and most others can go.
        found, scores = np.concatenate(rows), np.concatenate(kept, axis=1)
        return found[_reach(scores, _near_kth(scores, k) - slack)]

    def _blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yields the rows block by block; each until the next."""
        buffer = np.empty((min(self._rows, len(self._vectors)), self._vectors.shape[1]), np.float32)
        for start in range(0, len(self._vectors), self._rows):
            block = self._vectors[start : start + self._rows]
            if not block.flags.aligned:
                place = buffer[: len(block)]
                np.copyto(place, block)
                block = place
            yield block


def _reach(scores: NDArray[np.float32], least: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns the places that are good enough for any query, ascending."""
    return np.flatnonzero((scores >= least.astype(np.float32)[:, None]).any(axis=0))


def _near_kth(scores: NDArray[np.float32], k: int) -> NDArray[np.float64]:
    """Returns a number that the k-th best of each row is not below, and near it: (n,)."""
    n, rows = scores.shape
    width = max(1, min(_BLOCK_ROWS, rows // (4 * k)))
    whole = rows // width * width
    # Of k blocks, each has one as good as the worst of their best.
    best = scores[:, :whole].reshape(n, -1, width).max(axis=2) if width > 1 else scores
    return np.partition(best, best.shape[1] - k, axis=1)[:, best.shape[1] - k].astype(np.float64)

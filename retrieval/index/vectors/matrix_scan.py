"""Finds the few rows that may be among the best of a scan, with one matrix product."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

MAX_QUERIES = 64
# Components per block of rows: 3 MiB. With 49,000 x 384 and 64 queries a scan takes 30 ms, and
# 36 ms with blocks four times as large.
_BLOCK_COMPONENTS = 3 << 18
_BLOCK_ROWS = 64
# Half the distance from 1 to the next float32.
_ROUNDING = float(np.finfo(np.float32).eps) / 2


class MatrixScan:
    """Scans all vectors for several queries together; may be used from several threads.

    A matrix product rounds differently from separate inner products, so its scores are not
    returned: only the rows that could be among the best within the rounding error.

    Args:
        vectors: (rows, d) float32, finite; not copied. They may be unaligned, as in a mapped FAISS
            file; numpy alone would then copy all of them for each product.
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self._vectors = vectors
        self._block_rows = max(1, _BLOCK_COMPONENTS // vectors.shape[1])
        squares = [np.einsum("ij,ij->i", block, block).max() for block in self._blocks()]
        self._longest = float(np.sqrt(max(squares, default=0.0)))

    def candidates(self, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """Returns the row numbers that may be among the k best of any query, ascending.

        Contains all such rows, including ties at the edge, and few others.

        Args:
            queries: (n, d) float32, finite, n <= MAX_QUERIES.
            k: Number of rows, 1..rows.
        Source: Higham (2002), Accuracy and Stability of Numerical Algorithms, 3.1: a sum of d
            products, in any order, is within d u |q| |x| of the exact value; so a matrix product
            and a sum differ by at most twice that, and so do their k-th best scores.
        """
        assert len(queries) <= MAX_QUERIES
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1)
        slack = 4 * (queries.shape[1] + 2) * _ROUNDING * lengths * self._longest
        least = np.full(len(queries), -np.inf)
        rows, kept_scores = [], []
        for number, block in enumerate(self._blocks()):
            scores = queries @ block.T
            # Only after 1, 2, 4, 8 … blocks: in between, the threshold would hardly rise.
            if number & (number + 1) == 0 and scores.shape[1] >= k:
                least = np.maximum(least, _near_kth(scores, k) - slack)
            good = _reach(scores, least)
            rows.append(good + number * self._block_rows)
            kept_scores.append(scores[:, good])
        # The k best rows of each query are among these; most others can be dropped.
        found, scores = np.concatenate(rows), np.concatenate(kept_scores, axis=1)
        return found[_reach(scores, _near_kth(scores, k) - slack)]

    def _blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yields the rows block by block; a block is valid until the next one."""
        buffer = np.empty(
            (min(self._block_rows, len(self._vectors)), self._vectors.shape[1]), np.float32
        )
        for start in range(0, len(self._vectors), self._block_rows):
            block = self._vectors[start : start + self._block_rows]
            if not block.flags.aligned:
                aligned = buffer[: len(block)]
                np.copyto(aligned, block)
                block = aligned
            yield block


def _reach(scores: NDArray[np.float32], least: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns the columns that reach the threshold of any query, ascending."""
    return np.flatnonzero((scores >= least.astype(np.float32)[:, None]).any(axis=0))


def _near_kth(scores: NDArray[np.float32], k: int) -> NDArray[np.float64]:
    """Returns a tight lower bound of the k-th best score of each row: (n,)."""
    n, rows = scores.shape
    width = max(1, min(_BLOCK_ROWS, rows // (4 * k)))
    whole = rows // width * width
    # Each of the k blocks with the best maxima contains a score >= the worst of these maxima.
    best = scores[:, :whole].reshape(n, -1, width).max(axis=2) if width > 1 else scores
    return np.partition(best, best.shape[1] - k, axis=1)[:, best.shape[1] - k].astype(np.float64)

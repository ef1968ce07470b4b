"""Exact search by a scan of all vectors, and the recall of an index against it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

K = 10
_BLOCK_NUMBERS = 1 << 22
# float32 sums in a different order differ in their last digits, so ties count as found.
_TOLERANCE = 1e-5


class ExactResults(NamedTuple):
    """Queries with their exact results.

    queries: (n, d) float32.
    rows: (n, k) int64 rows of the collection, best first. scores: (n, k) float32 inner products.
    lowest: (n,) float32, score of the worst vector of the collection.
    """

    queries: NDArray[np.float32]
    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    lowest: NDArray[np.float32]


def scan(
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    k: int,
    advance: Callable[[int], None] = lambda rows: None,
) -> ExactResults:
    """Finds the k best rows and the worst score of each query by scanning all vectors in blocks.

    Args:
        vectors: (m, d) float32, mapped from disk.
        queries: (n, d) float32.
        k: At most m.
        advance: Called with the number of rows scanned.
    Returns: Scores are inner products; lowest is infinite if there are no vectors.
    """
    lowest = np.full(len(queries), np.inf, np.float32)
    best_rows = np.empty((len(queries), 0), np.int64)
    best_scores = np.empty((len(queries), 0), np.float32)
    block_rows = max(k, _BLOCK_NUMBERS // max(vectors.shape[1], len(queries), 1))
    for first in range(0, len(vectors), block_rows):
        block = np.asarray(vectors[first : first + block_rows])
        products = queries @ block.T
        lowest = np.minimum(lowest, products.min(axis=1))
        scores = np.concatenate((best_scores, products), axis=1)
        numbers = np.broadcast_to(
            np.arange(first, first + len(block), dtype=np.int64), (len(queries), len(block))
        )
        rows = np.concatenate((best_rows, numbers), axis=1)
        keep = np.argpartition(-scores, min(k, scores.shape[1]) - 1, axis=1)[:, :k]
        best_rows = np.take_along_axis(rows, keep, axis=1)
        best_scores = np.take_along_axis(scores, keep, axis=1)
        advance(len(block))
    order = np.lexsort((best_rows, -best_scores), axis=1)
    return ExactResults(
        queries,
        np.take_along_axis(best_rows, order, axis=1),
        np.take_along_axis(best_scores, order, axis=1),
        lowest,
    )


def recall_of(
    exact: ExactResults,
    vectors: NDArray[np.float32],
    rows: NDArray[np.int64],
    scores: NDArray[np.float32],
) -> float:
    """Returns the share of the exact k best that an index found, 0..1.

    Args:
        exact: Queries with their exact results.
        vectors: (m, d) float32 of the collection.
        rows, scores: (n, c) results of all shards, as scored by the index; row -1 is padding.
    Returns: Mean over queries. Of the results, the k best by the index's score count if their true
        score is among the exact k best; ties are equally good.
    """
    queries, k = exact.rows.shape
    if queries == 0:
        return 1.0
    best = np.argsort(np.where(rows >= 0, -scores, np.inf), axis=1, kind="stable")[:, :k]
    shares = []
    for number, kept in enumerate(np.take_along_axis(rows, best, axis=1)):
        true_scores = np.asarray(vectors[kept[kept >= 0]]) @ exact.queries[number]
        shares.append(_good_results(exact, number, true_scores) / k)
    return float(np.mean(shares))


def shard_recall(
    exact: ExactResults,
    vectors: NDArray[np.float32],
    shard_rows: NDArray[np.int64],
    places: NDArray[np.int64],
) -> float:
    """Returns the share of the exact k best within one shard that its index found, 0..1.

    Args:
        exact: Queries with their exact results in the whole collection.
        vectors: (m, d) float32 of the collection.
        shard_rows: (s,) rows of the collection by position in the shard.
        places: (n, k) positions that the index of the shard found; -1 is padding.
    Returns: Ties are equally good. 1 if no result is in the shard.
    """
    wanted = np.isin(exact.rows, shard_rows).sum(axis=1)
    found = 0
    for number, kept in enumerate(places):
        true_scores = np.asarray(vectors[shard_rows[kept[kept >= 0]]]) @ exact.queries[number]
        found += min(int(wanted[number]), _good_results(exact, number, true_scores))
    return found / int(wanted.sum()) if wanted.any() else 1.0


def _good_results(exact: ExactResults, number: int, true_scores: NDArray[np.float32]) -> int:
    """Returns how many scores are as good as the last exact result of a query."""
    edge = float(exact.scores[number, -1])
    return int((true_scores >= edge - _TOLERANCE * max(1.0, abs(edge))).sum())

"""Interactions as a user-item matrix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from index_builder.interactions.records import Interactions
from nearline.times import DAY_US

# Products of two cells that are added up at once; the sums take at most 16 bytes each.
_BLOCK_PRODUCTS = 1 << 23
# Of a whole matrix: about an hour. Only users with very long histories reach it.
MOST_PRODUCTS = 200_000_000_000
# Least share of repeated pairs for which lists that may repeat items have models of their own.
_REPEATED = 0.01


def users_by_items(
    interactions: Interactions, *, counts: bool = False, decay_days: float = np.inf
) -> Any:
    """Returns a (users, items) float32 CSR matrix with ascending columns.

    Args:
        counts: Whether a cell is the sum of the weights of its interactions; if not, it is 1.
        decay_days: An interaction t days older than the newest weighs exp(-t / decay_days).
    """
    shape = (len(interactions.users), len(interactions.items))
    weight = interactions.weight
    if np.isfinite(decay_days):
        age_us = interactions.time_us.max(initial=0) - interactions.time_us
        weight = weight * np.exp(-age_us / (decay_days * DAY_US)).astype(np.float32)
    cells = (weight, (interactions.user, interactions.item))
    matrix = sp.csr_matrix(cells, shape=shape, dtype=np.float32)
    matrix.sum_duplicates()
    if not counts:
        matrix.data[:] = 1
    return matrix


def newest_counted(interactions: Interactions, most: int = MOST_PRODUCTS) -> int | None:
    """Returns the number of newest interactions of each user whose pairs of items are counted.

    It is the largest whose squares, added over users, are at most `most`; None if users have fewer.
    """
    counts = np.bincount(interactions.user).astype(np.float64)
    if (counts**2).sum() <= most:
        return None
    low, high = 1, int(counts.max())
    while low < high:
        middle = (low + high + 1) // 2
        fits = (np.minimum(counts, middle) ** 2).sum() <= most
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def newest_rows(interactions: Interactions, count: int | None) -> Interactions:
    """Returns the newest rows of each user; None means all, in the order of the file."""
    if count is None:
        return interactions
    ordered = interactions.by_time()
    stops = np.cumsum(np.bincount(ordered.user))
    return ordered.some(stops[ordered.user] - np.arange(len(ordered.user)) <= count)


def has_repeats(interactions: Interactions) -> bool:
    """Returns whether users have items again: whether one row of a hundred repeats a pair."""
    rows = len(interactions.user)
    return rows - len(interactions.pairs()) >= _REPEATED * rows


def item_counts(interactions: Interactions) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Returns the number of interactions with each item: (items,) int64."""
    return np.bincount(interactions.item, minlength=len(interactions.items))


def blocks_within(costs: NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Returns ranges of items, in order, whose costs add up to at most `most`, or of one item."""
    ends = np.cumsum(costs)
    first = 0
    while first < len(costs):
        spent = ends[first] - costs[first]
        stop = max(int(np.searchsorted(ends, spent + most, side="right")), first + 1)
        yield first, stop
        first = stop


def cooccurrence_blocks(matrix: Any) -> Iterator[tuple[int, Any]]:
    """Returns the rows of X'X in blocks, each with the number of its first row.

    Memory is bounded by the block, time by the sum of the squares of the users' numbers of items.

    Args:
        matrix: X, (users, items) CSR.
    Returns: (n, items) CSR blocks with ascending columns, of the dtype of X.
    """
    by_item = matrix.T.tocsr()
    of_cells = np.append(np.diff(matrix.indptr)[by_item.indices], 0)
    costs = np.add.reduceat(of_cells, by_item.indptr[:-1], dtype=np.int64)
    costs[np.diff(by_item.indptr) == 0] = 0
    for first, stop in blocks_within(costs, _BLOCK_PRODUCTS):
        block = by_item[first:stop] @ matrix
        block.sort_indices()
        yield first, block

"""Items that occur near each other in the sequence of a user's interactions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from index_builder.behaviour.top_n_matrix import LIST_LENGTH, top_n_lists_sparse
from index_builder.behaviour.user_item_matrix import item_counts
from index_builder.interactions.records import Interactions
from retrieval.behaviour.item_lists import ItemLists


class SessionOptions(NamedTuple):
    """How pairs are weighted.

    window: Maximum distance of a pair, in interactions of one user.
    decay: A pair at distance d weighs exp(-(d - 1) / decay).
    beta, shrink: The sum of a pair (a, b) is divided by a^(1 - beta) b^beta + shrink, where a and b
        are the numbers of interactions with either item; a larger beta penalises popular items
        more.
    directed: Whether an item's list contains only items that occur after it.
    """

    window: int = 30
    decay: float = 15.0
    beta: float = 0.45
    shrink: float = 10.0
    directed: bool = False


def session_lists(
    interactions: Interactions,
    options: SessionOptions = SessionOptions(),  # noqa: B008  tuples are immutable
    length: int = LIST_LENGTH,
) -> ItemLists:
    """Returns the lists; see `SessionOptions`."""
    ordered = interactions.by_time()
    items = len(interactions.items)
    pairs = sp.csr_matrix((items, items), dtype=np.float32)
    for distance in range(1, min(options.window, len(ordered.user) - 1) + 1):
        same = ordered.user[distance:] == ordered.user[:-distance]
        before, after = ordered.item[:-distance][same], ordered.item[distance:][same]
        weight = np.float32(np.exp(-(distance - 1) / options.decay))
        cells = (np.full(len(before), weight), (before, after))
        # Added distance by distance: all pairs at once would take `window` times the memory.
        pairs = pairs + sp.csr_matrix(cells, shape=(items, items), dtype=np.float32)
    if not options.directed:
        pairs = pairs + pairs.T
    pairs.setdiag(0)
    pairs.eliminate_zeros()
    pairs = pairs.tocsr()
    pairs.sort_indices()
    counts = np.maximum(item_counts(interactions), 1).astype(np.float64)
    rows = np.repeat(np.arange(items), np.diff(pairs.indptr))
    beta = options.beta
    scale = counts[rows] ** (1 - beta) * counts[pairs.indices] ** beta + options.shrink
    pairs.data = (pairs.data / scale).astype(np.float32)
    return top_n_lists_sparse(pairs, length)

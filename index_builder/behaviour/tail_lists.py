"""What goes with an item where few had it: its list goes on by the factors of items."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieval.behaviour.factors import ItemFactors
from retrieval.behaviour.item_lists import ItemLists

# Together with what is listed: as many as a hot list keeps.
LENGTH = 64
_BLOCK_ROWS = 4_096
# More items are searched through cells: the tail of a list may be approximate, hours may not.
_EXACT_ITEMS = 100_000
_PROBED = 32
# The stubs of faiss 1.15 leave out most of its classes.
_faiss: Any = faiss


def build_tail_lists(
    lists: ItemLists,
    factors: ItemFactors,
    trained: NDArray[np.bool_],
    length: int = LENGTH,
) -> ItemLists:
    """Makes what follows on the list of each trained item until both have `length` items.

    Scores are inner products with the vector of a user who had that item once, and nothing else;
    equal ones stand in the order of numbers. No item is on both lists, none goes with itself. What
    has no interaction may be listed, but has no list.

    Args:
        lists: With (items + 1,) starts. factors: Of all items. trained: (items,).
    """
    counts = np.diff(lists.starts)
    short = np.flatnonzero(trained & (counts < length))
    vectors = np.ascontiguousarray(factors.vectors)
    # One more than wanted: the item itself is among its own best.
    depth = min(length + 1, len(vectors))
    index = _index(vectors)
    listed = np.repeat(np.arange(lists.items), counts) * lists.items + lists.others
    taken = np.sort(np.concatenate((listed, np.arange(lists.items) * (lists.items + 1))))
    kept_others: list[NDArray[np.int32]] = []
    kept_scores: list[NDArray[np.float32]] = []
    lengths = np.zeros(lists.items, np.int64)
    for at in range(0, len(short), _BLOCK_ROWS):
        items = short[at : at + _BLOCK_ROWS]
        scores, others = index.search(single_item_users(factors, items), depth)
        order = np.lexsort((others, -scores))
        scores, others = (np.take_along_axis(one, order, axis=1) for one in (scores, others))
        keys = items[:, None] * lists.items + others
        # Cells may hold fewer than asked for: then a number is -1.
        free = (others >= 0) & ~_in_sorted(keys, taken)
        free &= np.cumsum(free, axis=1) <= (length - counts[items])[:, None]
        kept_others.append(others[free].astype(np.int32))
        kept_scores.append(scores[free].astype(np.float32))
        lengths[items] = free.sum(axis=1)
    starts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    nothing = (np.empty(0, np.int32), np.empty(0, np.float32))
    return ItemLists(
        starts,
        np.concatenate((nothing[0], *kept_others)),
        np.concatenate((nothing[1], *kept_scores)),
    )


def single_item_users(factors: ItemFactors, items: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns the vectors of users who had one item each: (n, f) float32.

    As `ItemFactors.fold_in` does, all at once: with A = Y'Y + reg I, by Sherman and Morrison
    (A + (alpha - 1) y y')^-1 alpha y = alpha z / (1 + (alpha - 1) y z),   z = A^-1 y.
    """
    left = factors.gram + factors.regularisation * np.eye(len(factors.gram))
    rows = factors.vectors[items].astype(np.float64)
    solved = np.linalg.solve(left, rows.T).T
    scale = 1 + (factors.alpha - 1) * (rows * solved).sum(axis=1)
    return np.ascontiguousarray((factors.alpha * solved / scale[:, None]).astype(np.float32))


def _index(vectors: NDArray[np.float32]) -> Any:
    count, dim = vectors.shape
    if count <= _EXACT_ITEMS:
        index = _faiss.IndexFlatIP(dim)
    else:
        cells = 4 * round(count**0.5)
        index = _faiss.index_factory(dim, f"IVF{cells},Flat", _faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        index.nprobe = _PROBED
    index.add(vectors)
    return index


def _in_sorted(keys: NDArray[np.int64], taken: NDArray[np.int64]) -> NDArray[np.bool_]:
    places = np.minimum(np.searchsorted(taken, keys), len(taken) - 1)
    found: NDArray[np.bool_] = taken[places] == keys
    return found

"""Extends short lists of related items by the factors of items."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieval.behaviour.factors import ItemFactors
from retrieval.behaviour.item_lists import ItemLists
from retrieval.behaviour.spilled_array import SpilledArray

# Length of list and tail together: as much as the cache keeps of a list.
LENGTH = 64
_BLOCK_ROWS = 4_096
# Larger sets are searched by cells: a tail may be approximate, but must not take hours.
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
    """Returns, for each trained item, a continuation of its list up to `length` items in total.

    Scores are inner products with the vector of a user who interacted with the item once; ties are
    broken by item number. A tail repeats no item of the list and never contains the item itself.
    Items without interactions may be listed, but have no tail.

    Args:
        lists: The lists to extend, with (items + 1,) starts.
        factors: Factors of all items.
        trained: (items,), whether the item has interactions.
    """
    counts = np.diff(lists.starts)
    short = np.flatnonzero(trained & (counts < length))
    vectors = np.ascontiguousarray(factors.vectors)
    # One extra result, because an item is among its own best results.
    depth = min(length + 1, len(vectors))
    index = _index(vectors)
    tail_items, tail_scores = SpilledArray(np.int32), SpilledArray(np.float32)
    lengths = np.zeros(lists.items, np.int64)
    for at in range(0, len(short), _BLOCK_ROWS):
        items = short[at : at + _BLOCK_ROWS]
        scores, others = index.search(single_item_users(factors, items), depth)
        order = np.lexsort((others, -scores))
        scores, others = (np.take_along_axis(one, order, axis=1) for one in (scores, others))
        keys = np.arange(len(items))[:, None] * lists.items + others
        entries = lists.entries(items)
        listed = entries.events * lists.items + entries.others
        own = np.arange(len(items)) * lists.items + items
        # Cells may return fewer than requested; then a number is -1.
        free = (others >= 0) & ~_in_sorted(keys, np.sort(np.concatenate((listed, own))))
        free &= np.cumsum(free, axis=1) <= (length - counts[items])[:, None]
        tail_items.add(others[free])
        tail_scores.add(scores[free])
        lengths[items] = free.sum(axis=1)
    starts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    return ItemLists(starts, tail_items.array(), tail_scores.array())


def single_item_users(factors: ItemFactors, items: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns the vectors of users who interacted with one item each: (n, f) float32.

    Computes `ItemFactors.fold_in` for all at once: with A = Y'Y + reg I, by Sherman and Morrison,
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


def _in_sorted(keys: NDArray[np.int64], listed_keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    places = np.minimum(np.searchsorted(listed_keys, keys), len(listed_keys) - 1)
    found: NDArray[np.bool_] = listed_keys[places] == keys
    return found

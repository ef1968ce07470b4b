"""Item-by-item matrices, cut to lists of the best items."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.behaviour.item_lists import ItemLists
from retrieval.behaviour.spilled_array import SpilledArray

LIST_LENGTH = 200


def best_entries(
    starts: NDArray[Any], values: NDArray[np.float32], most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Finds the largest positive entries of each row; of equal ones, the first.

    Args:
        starts: (r + 1,), the entries of row i are starts[i]:starts[i + 1].
        values: (n,). most: Maximum number for each row.
    Returns: Places of the entries, row by row, largest first; and their number in each row: (r,).
    """
    kept = values > 0
    counts = np.diff(np.concatenate(([0], np.cumsum(kept)))[starts])
    for row in np.flatnonzero(counts > most).tolist():
        part = slice(starts[row], starts[row + 1])
        kept[part] &= values[part] >= np.partition(values[part], -most)[-most]
    rows = np.repeat(np.arange(len(counts)), np.diff(starts))[kept]
    # One stable sort by row and descending value: bits of positive numbers are in their order.
    descending = np.uint64(2**32 - 1) - values[kept].view(np.uint32)
    order = np.argsort((rows.astype(np.uint64) << np.uint64(32)) | descending, kind="stable")
    counts = np.bincount(rows, minlength=len(counts))
    place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    order = order[place < most]
    return np.flatnonzero(kept)[order], np.minimum(counts, most)


class ListBuilder:
    """Collects the lists of items, a block of rows of a matrix at a time.

    A list has the best positive scores of a row; ties are broken by item number.

    Args:
        length: Maximum length of a list.
    """

    def __init__(self, length: int = LIST_LENGTH) -> None:
        self._length = length
        self._counts = [np.zeros(1, np.int64)]
        self._others = SpilledArray(np.int32)
        self._scores = SpilledArray(np.float32)

    def add(self, starts: NDArray[Any], columns: NDArray[Any], values: NDArray[Any]) -> None:
        """Adds the lists of the next r items.

        Args:
            starts: (r + 1,), the entries of row i are starts[i]:starts[i + 1].
            columns: (n,) ascending in each row. values: (n,) float32.
        """
        order, counts = best_entries(starts, values, self._length)
        self._counts.append(counts)
        self._others.add(columns[order])
        self._scores.add(values[order])

    def lists(self) -> ItemLists:
        """Returns the lists of all items that were added."""
        starts = np.cumsum(np.concatenate(self._counts))
        return ItemLists(starts, self._others.array(), self._scores.array())


def top_n_lists(blocks: Iterable[NDArray[np.float32]], length: int = LIST_LENGTH) -> ItemLists:
    """Returns the best positive scores of each row as lists; see `ListBuilder`.

    Args:
        blocks: Rows of the matrix in order, (n, items) float32 each.
    """
    builder = ListBuilder(length)
    for block in blocks:
        kept = block > 0
        starts = np.concatenate(([0], np.cumsum(kept.sum(axis=1))))
        builder.add(starts, np.nonzero(kept)[1].astype(np.int32), block[kept])
    return builder.lists()


def top_n_lists_sparse(blocks: Iterable[Any], length: int = LIST_LENGTH) -> ItemLists:
    """Returns the same lists of rows that are CSR matrices with ascending columns, in order."""
    builder = ListBuilder(length)
    for block in blocks:
        builder.add(block.indptr, block.indices, block.data.astype(np.float32))
    return builder.lists()

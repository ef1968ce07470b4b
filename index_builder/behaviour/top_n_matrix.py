"""Item-by-item matrices, cut to lists of the best items."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.behaviour.item_lists import ItemLists
from retrieval.index.best_rows import top_k_with_ties

LIST_LENGTH = 200


def top_n_lists(blocks: Iterable[NDArray[np.float32]], length: int = LIST_LENGTH) -> ItemLists:
    """Returns the best positive scores of each row as lists; ties are broken by item number.

    Args:
        blocks: Rows of the matrix in order, (n, items) float32 each.
    """
    return _lists(((np.arange(len(row)), row) for block in blocks for row in block), length)


def top_n_lists_sparse(matrix: Any, length: int = LIST_LENGTH) -> ItemLists:
    """Returns the same lists of an (items, items) float32 CSR matrix with ascending columns."""
    parts = map(slice, matrix.indptr[:-1], matrix.indptr[1:])
    return _lists(((matrix.indices[part], matrix.data[part]) for part in parts), length)


def _lists(rows: Iterable[tuple[NDArray[Any], NDArray[np.float32]]], length: int) -> ItemLists:
    """Returns lists of rows, each passed as columns and their scores."""
    counts = [0]
    others = [np.empty(0, np.int32)]
    scores = [np.empty(0, np.float32)]
    for columns, values in rows:
        positive = values > 0
        columns, values = top_k_with_ties(columns[positive], values[positive], length)
        order = np.argsort(-values, kind="stable")[:length]
        counts.append(len(order))
        others.append(columns[order].astype(np.int32))
        scores.append(values[order])
    return ItemLists(np.cumsum(counts), np.concatenate(others), np.concatenate(scores))

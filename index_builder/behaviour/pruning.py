"""Matrices of items by items, cut down to lists of the best."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.behaviour.item_lists import ItemLists

LIST_LENGTH = 200


def lists_of(blocks: Iterable[NDArray[np.float32]], length: int = LIST_LENGTH) -> ItemLists:
    """Makes lists of the best positive scores of each row; equal ones by item number.

    Args:
        blocks: Rows of the matrix in order, (n, items) float32 each.
    """
    counts: list[int] = []
    others: list[NDArray[np.int32]] = []
    scores: list[NDArray[np.float32]] = []
    for block in blocks:
        for row in block:
            best = _best(row, length)
            counts.append(len(best))
            others.append(best.astype(np.int32))
            scores.append(row[best])
    return _made(counts, others, scores)


def lists_of_sparse(matrix: Any, length: int = LIST_LENGTH) -> ItemLists:
    """Makes the same lists from a matrix in CSR form, (items, items) float32."""
    counts: list[int] = []
    others: list[NDArray[np.int32]] = []
    scores: list[NDArray[np.float32]] = []
    for start, stop in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        values = matrix.data[start:stop]
        best = _best(values, length)
        counts.append(len(best))
        others.append(matrix.indices[start:stop][best].astype(np.int32))
        scores.append(values[best])
    return _made(counts, others, scores)


def _best(values: NDArray[np.float32], length: int) -> NDArray[np.int64]:
    places = np.flatnonzero(values > 0)
    if len(places) > length:
        edge = np.partition(values[places], -length)[-length]
        places = places[values[places] >= edge]
    return places[np.argsort(-values[places], kind="stable")[:length]]


def _made(
    counts: list[int], others: list[NDArray[np.int32]], scores: list[NDArray[np.float32]]
) -> ItemLists:
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return ItemLists(
        starts,
        np.concatenate([np.empty(0, np.int32), *others]),
        np.concatenate([np.empty(0, np.float32), *scores]).astype(np.float32),
    )

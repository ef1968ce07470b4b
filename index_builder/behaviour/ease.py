"""EASE: a linear regression that predicts each item from all others, with a zero diagonal.

    P = (X'X + lambda I)^-1,   B = I - P / diag(P)     (Steck, 2019, equation 8)
With the diagonal kept it is plain ridge regression, B = I - lambda P, in which items predict
themselves: useful in shops, where people buy items again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_builder.behaviour.top_n_matrix import LIST_LENGTH, top_n_lists
from index_builder.behaviour.user_item_matrix import cooccurrence_blocks
from retrieval.behaviour.item_lists import ItemLists

# Time grows with the cube of the number of items, memory with its square: half a minute and 0.8 GB
# here. Of larger catalogues, the items with the most users are taken.
MOST_ITEMS = 10_000
REGULARISATION = 300.0
_BLOCK_ROWS = 256
# Returns the rows of P in a range.
_Rows = Callable[[int, int], NDArray[np.float32]]


def ease_lists(
    matrix: Any,
    regularisation: float = REGULARISATION,
    *,
    keep_diagonal: bool = False,
    length: int = LIST_LENGTH,
) -> ItemLists:
    """Returns, for each item, the items that it predicts with a positive weight, best first.

    Args:
        matrix: (users, items) CSR with at most MOST_ITEMS items.
        regularisation: lambda > 0.
        keep_diagonal: Whether to compute ridge regression; see the module.
    """
    assert matrix.shape[1] <= MOST_ITEMS, f"{matrix.shape[1]} items are too many for EASE"
    rows, diagonal = _inverse(matrix, regularisation)
    items = matrix.shape[1]

    def blocks() -> Iterator[NDArray[np.float32]]:
        for first in range(0, items, _BLOCK_ROWS):
            stop = min(first + _BLOCK_ROWS, items)
            block = rows(first, stop)
            own = np.arange(first, stop)
            if keep_diagonal:
                block *= -regularisation
                block[own - first, own] += 1
            else:
                block /= -diagonal
                block[own - first, own] = 0
            yield block

    return top_n_lists(blocks(), length)


def _inverse(matrix: Any, regularisation: float) -> tuple[_Rows, NDArray[np.float32]]:
    """Returns a function for rows of P, and its diagonal; inverts the smaller of X'X and XX'."""
    users, items = matrix.shape
    if items <= users:
        gram = np.empty((items, items))
        for first, block in cooccurrence_blocks(matrix):
            gram[first : first + block.shape[0]] = block.toarray()
        gram[np.diag_indices(items)] += regularisation
        inverse = np.linalg.inv(gram).astype(np.float32)
        return lambda first, stop: inverse[first:stop].copy(), np.diag(inverse).copy()
    # By Woodbury: P = (I - X' (XX' + lambda I)^-1 X) / lambda.
    gram = (matrix @ matrix.T).toarray().astype(np.float64)
    gram[np.diag_indices(users)] += regularisation
    # (users, items): (XX' + lambda I)^-1 X.
    right = (matrix.T @ np.linalg.inv(gram)).T.astype(np.float32)
    columns = matrix.tocsc()

    def rows(first: int, stop: int) -> NDArray[np.float32]:
        block: NDArray[np.float32] = -(columns[:, first:stop].T @ right) / regularisation
        own = np.arange(first, stop)
        block[own - first, own] += 1 / regularisation
        return block

    explained = np.asarray(columns.multiply(right).sum(axis=0)).ravel()
    return rows, ((1 - explained) / regularisation).astype(np.float32)

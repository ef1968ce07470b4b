"""Items with the same users, weighted by BM25."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from implicit.nearest_neighbours import bm25_weight

from index_builder.behaviour.top_n_matrix import LIST_LENGTH, top_n_lists_sparse
from index_builder.behaviour.user_item_matrix import cooccurrence_blocks
from retrieval.behaviour.item_lists import ItemLists

# The usual values, which are also the defaults of `implicit`.
_K1, _B = 1.2, 0.75


def item_to_item_lists(matrix: Any, length: int = LIST_LENGTH) -> ItemLists:
    """Returns, for each item, the most similar items, best first.

    Args:
        matrix: (users, items) float32 CSR.
    """
    # Items are documents whose words are users: rare users weigh more, popular items less.
    weighted = bm25_weight(matrix.T, K1=_K1, B=_B).T.tocsr()
    return top_n_lists_sparse(_similarities(weighted), length)


def _similarities(weighted: Any) -> Iterator[Any]:
    for first, block in cooccurrence_blocks(weighted):
        own = np.repeat(np.arange(first, first + block.shape[0]), np.diff(block.indptr))
        block.data[block.indices == own] = 0
        yield block

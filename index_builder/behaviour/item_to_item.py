"""Items that the same users had, weighted by BM25; `implicit` does the work."""

from __future__ import annotations

from typing import Any

import numpy as np
from implicit.nearest_neighbours import ItemItemRecommender, bm25_weight

from index_builder.behaviour.top_n_matrix import LIST_LENGTH, top_n_lists_sparse
from retrieval.behaviour.item_lists import ItemLists

# The usual ones, and those of `implicit`.
_K1, _B = 1.2, 0.75


def item_to_item_lists(matrix: Any, length: int = LIST_LENGTH, threads: int = 0) -> ItemLists:
    """Makes the lists.

    Args:
        matrix: (users, items) float32 CSR.
        threads: 0: one for each core.
    """
    # The nearest of an item is itself.
    model = ItemItemRecommender(K=length + 1, num_threads=threads)
    # An item is a document of users: rare users say more, items of many users less.
    weighted = bm25_weight(matrix.T, K1=_K1, B=_B).T.tocsr()
    model.fit(weighted, show_progress=False)
    similar = model.similarity.tocsr().astype(np.float32)
    similar.setdiag(0)
    similar.eliminate_zeros()
    similar.sort_indices()
    return top_n_lists_sparse(similar, length)

"""Items with the same users, weighted by BM25; computed by `implicit`."""

from __future__ import annotations

from typing import Any

import numpy as np
from implicit.nearest_neighbours import ItemItemRecommender, bm25_weight

from index_builder.behaviour.top_n_matrix import LIST_LENGTH, top_n_lists_sparse
from retrieval.behaviour.item_lists import ItemLists

# The usual values, which are also the defaults of `implicit`.
_K1, _B = 1.2, 0.75


def item_to_item_lists(matrix: Any, length: int = LIST_LENGTH, threads: int = 0) -> ItemLists:
    """Returns, for each item, the most similar items, best first.

    Args:
        matrix: (users, items) float32 CSR.
        threads: Number of threads; 0 means one per core.
    """
    # One extra neighbour: the most similar item is the item itself.
    model = ItemItemRecommender(K=length + 1, num_threads=threads)
    # Items are documents whose words are users: rare users weigh more, popular items less.
    weighted = bm25_weight(matrix.T, K1=_K1, B=_B).T.tocsr()
    model.fit(weighted, show_progress=False)
    similar = model.similarity.tocsr().astype(np.float32)
    similar.setdiag(0)
    similar.eliminate_zeros()
    similar.sort_indices()
    return top_n_lists_sparse(similar, length)

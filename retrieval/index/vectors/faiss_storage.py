"""The vectors inside a FAISS index, read in blocks and scored one by one."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieval.index.vectors.faiss_layers import storage_of

# The stubs of faiss are incomplete.
_faiss: Any = faiss


class FaissStorage:
    """The vectors that an exact search of an index compares; may be used from several threads.

    Args:
        index: The index, as it was loaded; it is kept alive.

    rows, dim: Number of vectors, and of their components; a transformation may change the latter.
    inner_product: Whether scores are inner products.
    """

    def __init__(self, index: Any) -> None:
        # Wrappers of parts do not own them.
        self._owner = index
        self._index = index = faiss.downcast_index(index)
        self._vectors, no_query = storage_of(index, np.zeros((1, index.d), np.float32))
        self.rows: int = index.ntotal
        self.dim: int = no_query.shape[1]
        self.inner_product: bool = index.metric_type == faiss.METRIC_INNER_PRODUCT
        # Vectors that lie in memory as they are; others are decoded.
        self._plain = isinstance(self._vectors, faiss.IndexFlat)

    def transformed(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns queries as the vectors are stored: (n, dim) float32, C order."""
        return np.ascontiguousarray(storage_of(self._index, queries)[1])

    def read(self, first: int, count: int) -> NDArray[np.float32]:
        """Returns vectors `first` to `first + count - 1`: (count, dim) float32, a copy."""
        vectors: NDArray[np.float32] = self._vectors.reconstruct_n(first, count)
        return vectors

    def scores(self, queries: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the inner products of each query with rows of its own: (n, m) float32.

        Bit-identical to those of an exact search if the vectors are not compressed.

        Args:
            queries: (n, dim) float32, transformed, C order.
            rows: (n, m) row numbers; the score of a negative one is -inf.
        """
        rows = np.ascontiguousarray(rows, np.int64)
        if self._plain:
            vectors, places = self._vectors.get_xb(), rows
        else:
            known, inverse = np.unique(rows, return_inverse=True)
            places = np.where(rows >= 0, inverse.reshape(rows.shape), -1)
            # Row 0 stands for the negative numbers, whose vectors are not used.
            decoded = self._vectors.reconstruct_batch(np.maximum(known, 0))
            vectors = _faiss.swig_ptr(decoded)
        products = np.empty(rows.shape, np.float32)
        if rows.size:
            _faiss.fvec_inner_products_by_idx(
                _faiss.swig_ptr(products),
                _faiss.swig_ptr(queries),
                vectors,
                _faiss.swig_ptr(places),
                queries.shape[1],
                len(queries),
                rows.shape[1],
            )
        return products

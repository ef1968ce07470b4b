"""FAISS for live vectors: exact scores of selected rows, and HNSW graphs over many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieval.index.vectors.faiss_index import read_index

# The stubs of faiss are incomplete.
_faiss: Any = faiss
_LINKS = 32
_EF_CONSTRUCTION = 64


def inner_products(
    query: NDArray[np.float32], vectors: NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Returns the inner product of a query with some rows: (n,) float32.

    Bit-identical to an exact search of a Flat index, independent of the other rows.

    Args:
        query: (d,) float32, C order.
        vectors: (m, d) float32, C order.
        rows: (n,) int64 row numbers.
    """
    products = np.empty(len(rows), np.float32)
    if len(rows):
        _faiss.fvec_inner_products_by_idx(
            _faiss.swig_ptr(products),
            _faiss.swig_ptr(query),
            _faiss.swig_ptr(vectors),
            _faiss.swig_ptr(rows),
            len(query),
            1,
            len(rows),
        )
    return products


class HnswGraph:
    """An HNSW graph over vectors by inner product; it stores the vectors, too.

    Args:
        dim: Number of components of a vector.
    """

    def __init__(self, dim: int) -> None:
        self._index = _faiss.IndexHNSWFlat(dim, _LINKS, _faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = _EF_CONSTRUCTION

    @classmethod
    def read(cls, path: Path) -> HnswGraph:
        """Reads a graph from a file written by `write`."""
        graph = cls.__new__(cls)
        graph._index = read_index(path)
        return graph

    def copy(self) -> HnswGraph:
        """Returns a graph of its own with the same vectors."""
        graph = HnswGraph.__new__(HnswGraph)
        graph._index = _faiss.clone_index(self._index)
        return graph

    def write(self, path: Path) -> None:
        """Writes the graph to a file, for this version of faiss."""
        _faiss.write_index(self._index, str(path))

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Adds (n, d) float32 vectors; uses the calling thread's number of faiss threads."""
        self._index.add(np.ascontiguousarray(vectors))

    def vectors(self) -> NDArray[np.float32]:
        """Returns (n, d) float32 without copying; valid until the graph grows or is deleted."""
        storage = _faiss.downcast_index(self._index.storage)
        n, dim = self._index.ntotal, self._index.d
        vectors: NDArray[np.float32] = _faiss.rev_swig_ptr(storage.get_xb(), n * dim)
        return vectors.reshape(n, dim)

    def search(self, query: NDArray[np.float32], ef: int) -> NDArray[np.int64]:
        """Returns approximately the `ef` best rows: (n,) int64, n <= ef, best first."""
        params = _faiss.SearchParametersHNSW(efSearch=ef)
        _, found = self._index.search(query[None], ef, params=params)
        rows: NDArray[np.int64] = found[0]
        return rows[rows >= 0]

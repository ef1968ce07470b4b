"""Memory-mapped FAISS indexes as a `VectorIndex`."""

from __future__ import annotations

import math
import re
import threading
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from nearline.errors import SnapshotCorrupt, SnapshotMismatch, Unsupported
from retrieval.index.vectors.faiss_layers import (
    GPU_KINDS,
    KNOBS,
    exact_selector,
    is_product,
    layers_of,
    params_of,
    ranks_int8,
    storage_of,
)
from retrieval.index.vectors.faiss_storage import FaissStorage
from retrieval.index.vectors.int8_codec import scale_queries
from retrieval.index.vectors.matrix_scan import MAX_QUERIES, MatrixScan
from retrieval.index.vectors.vector_index import (
    IndexInfo,
    Neighbours,
    SearchParams,
    fit_to_k,
    sort_ties,
    stack,
)

# The module without its stubs, which lack keyword arguments of constructors.
_keywords: Any = faiss
_downcast: Any = faiss.downcast_index
# HNSW does not break ties by row, and a top-k heap drops ties at its edge: request a few more rows,
# sort, then cut.
_TIE_SLACK = 4
# An exact search widens until the ties at its edge are complete, by at most this many rows.
_TIE_LIMIT = 4_096
# From this size on, a Flat index passes the batch to BLAS, which rounds differently: scores in a
# batch would differ from those alone. Source: faiss, exhaustive_inner_product (nq * d >= 128,000).
_BLAS_COMPONENTS = 128_000
# From this many queries on, a matrix product selects the few rows to be scored as above.
_PRODUCT_QUERIES = 4
# Searching a few rows in IVF lists means reading whole lists: if fewer than one row in this many is
# allowed, rows are fetched by number instead. Measured with 49,800 x 384, IVF256, on a busy
# machine: 1 % of the rows take 6 to 8 ms by lists and 0.2 to 0.6 ms by number; 5 % take 5 to 8 ms
# and 2.2 ms.
_GATHER_FACTOR = 10
_WARM_QUERIES = 32
_REFINED = re.compile(r",R(Flat$|efine\()")
# faiss has one limit per process.
_load_lock = threading.Lock()


def use_one_thread() -> None:
    """Restricts faiss to the calling thread; call it once in every thread that searches.

    The setting is per thread: without this call, a thread uses all cores.
    """
    faiss.omp_set_num_threads(1)


def check_version(written_by: str) -> None:
    """Checks that the same minor version of faiss wrote an index.

    Raises: SnapshotMismatch: another version did; names both versions.
    """
    if written_by.split(".")[:2] != faiss.__version__.split(".")[:2]:
        raise SnapshotMismatch(
            f"the snapshot was written by faiss {written_by or '(unknown)'}, this process has "
            f"{faiss.__version__}; rebuild the snapshot or install faiss "
            f"{'.'.join(written_by.split('.')[:2])}"
        )


def read_index(path: Path, flags: int = 0, *, table_bytes: int = 0) -> Any:
    """Reads an index file; all reads must use this function, since it sets the limits of faiss.

    Args:
        path: The file.
        flags: Of faiss.
        table_bytes: Bytes of a table that faiss computes from the file, if that may be larger.
    Raises: RuntimeError, MemoryError: not an index, or a length in it exceeds the file size.
    """
    size = max(path.stat().st_size, table_bytes)
    with _load_lock:
        # No vector can be longer than the file: reject larger lengths.
        faiss.set_deserialization_vector_byte_limit(size)
        faiss.set_deserialization_loop_limit(size)
        return faiss.read_index(str(path), flags)


class FaissIndex:
    """A memory-mapped FAISS index.

    Args:
        index: The loaded faiss index.
        ef_search, nprobe: Default widths; 0 uses those of faiss.
    """

    def __init__(self, index: Any, *, ef_search: int = 0, nprobe: int = 0) -> None:
        # A downcast wrapper does not own the object: keep a reference to the original.
        self._owner = index
        self._index = _downcast(index)
        self._default_ef = ef_search or 64
        self._default_nprobe = nprobe or 1
        self._negate = index.metric_type == faiss.METRIC_L2
        # faiss only reads parameters, so all threads share one object per pair of widths.
        self._params: dict[tuple[int, int], Any] = {}
        layers = list(layers_of(self._index))
        knobs = [name for layer in layers for kind, name in KNOBS if isinstance(layer, kind)]
        no_query = np.zeros((1, index.d), np.float32)
        self._info = IndexInfo(
            kind=" > ".join(type(layer).__name__ for layer in layers),
            dim=index.d,
            rows=index.ntotal,
            knobs=frozenset(knobs),
            exact_together="exact" in knobs and is_product(storage_of(self._index, no_query)[0]),
            ef_search=self._default_ef,
            nprobe=self._default_nprobe,
        )
        # Whether FAISS can copy it to a GPU.
        self.copies_to_gpu = isinstance(layers[-1], GPU_KINDS)
        # An index that always scans is searched exactly, including ties.
        self._scans = isinstance(layers[-1], faiss.IndexFlatCodes) and all(
            isinstance(layer, faiss.IndexPreTransform) for layer in layers[:-1]
        )
        refine = next((layer for layer in layers if isinstance(layer, faiss.IndexRefine)), None)
        # The base finds this many times the requested rows, and the refine stage rescores them.
        self.refine_factor = 1.0 if refine is None else float(refine.k_factor)
        self._int8_queries = refine is not None and ranks_int8(layers[-1])
        self._product: MatrixScan | None = None
        ivf = next((layer for layer in layers if isinstance(layer, faiss.IndexIVF)), None)
        # A refine stage stores vectors by row.
        if ivf is not None and refine is None:
            # `reconstruct` needs the map from row numbers to lists.
            ivf.make_direct_map()

    @classmethod
    def load(
        cls, path: Path, factory: str, *, dim: int, rows: int, ef_search: int = 0, nprobe: int = 0
    ) -> FaissIndex:
        """Maps an index file into memory.

        Args:
            path: The file; it must not change while it is mapped.
            factory: The factory string that built it, which determines how it is mapped.
            dim, rows: Expected values, from the manifest.
            ef_search, nprobe: Default widths.
        Raises: SnapshotCorrupt: not an index, or unexpected `rows`. SnapshotMismatch: unexpected
            `dim`, or an unsupported metric.
        """
        # Lists need IO_FLAG_MMAP; codes and graphs need IO_FLAG_MMAP_IFC. In an IVF index with a
        # refine stage, the refine stage is the large part.
        lists = "IVF" in factory and not _REFINED.search(factory)
        flags = faiss.IO_FLAG_MMAP if lists else faiss.IO_FLAG_MMAP_IFC
        try:
            index = read_index(path, flags)
        except (RuntimeError, MemoryError) as error:
            reason = str(error).strip().splitlines()[-1:]
            raise SnapshotCorrupt(
                f"{path} is not a readable FAISS index ({reason}); rebuild the snapshot"
            ) from error
        if index.d != dim:
            raise SnapshotMismatch(
                f"{path} has dim {index.d}, the manifest says {dim}; rebuild the snapshot"
            )
        if index.ntotal != rows:
            raise SnapshotCorrupt(
                f"{path} has {index.ntotal} vectors, the manifest says {rows}; rebuild the snapshot"
            )
        if index.metric_type not in (faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2):
            raise SnapshotMismatch(
                f"{path} has faiss metric {index.metric_type}; use inner product or L2"
            )
        return cls(index, ef_search=ef_search, nprobe=nprobe)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        params: SearchParams = SearchParams(),  # noqa: B008  a tuple cannot change
        allow: NDArray[np.uint8] | None = None,
        rows: NDArray[np.int64] | None = None,
    ) -> Neighbours:
        """Finds neighbours; see `VectorIndex.search`.

        Equal scores are in row order. If more than `k + 4` rows (exact: `k + 4,096`) tie at the
        edge, the engine chooses among them.
        """
        self._check(params)
        if params.exact or self._scans:
            found = self._search_exact(queries, min(k, self._info.rows), allow, rows)
        else:
            limit = min(k + _TIE_SLACK, self._info.rows)
            found = self._search_near(queries, limit, self._plan(params, limit, allow))
        return fit_to_k(found, k)

    def reconstruct(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns stored vectors: (n, d) float32, a copy."""
        if len(rows) == 0:
            return np.empty((0, self._info.dim), np.float32)
        vectors: NDArray[np.float32] = self._index.reconstruct_batch(
            np.ascontiguousarray(rows, dtype=np.int64)
        )
        return vectors

    def describe(self) -> IndexInfo:
        """Returns the properties of the index."""
        return self._info

    def storage(self) -> FaissStorage:
        """Returns the vectors that an exact search compares."""
        return FaissStorage(self._owner)

    def warm(self) -> None:
        """Touches the pages that searches read, so that the first request does not wait for disk.

        Touches the mapping itself, since reading the file would only fill the page cache.
        """
        if self._info.rows == 0:
            return
        rows = np.linspace(0, self._info.rows - 1, _WARM_QUERIES).astype(np.int64)
        queries = self.reconstruct(rows)
        self.search(queries, 10)
        if "exact" in self._info.knobs:
            self.search(queries[:1], 10, SearchParams(exact=True))

    def close(self) -> None:
        """Closes the mapping."""
        self._params.clear()
        self._product = None
        self._index = self._owner = None

    def _check(self, params: SearchParams) -> None:
        for name, value in zip(SearchParams._fields, params, strict=True):
            if value and name not in self._info.knobs:
                raise Unsupported(
                    f"the index ({self._info.kind}) has no {name}; leave options.{name} unset",
                    field=f"options.{name}",
                )

    def _search_near(self, queries: NDArray[np.float32], k: int, params: Any) -> Neighbours:
        if not self._int8_queries:
            return sort_ties(*self._search(self._index, queries, k, params))
        scaled, factors = scale_queries(queries)
        ids, scores = self._search(self._index, scaled, k, params)
        return sort_ties(ids, scores / factors)

    def _search_exact(
        self,
        queries: NDArray[np.float32],
        k: int,
        allow: NDArray[np.uint8] | None,
        rows: NDArray[np.int64] | None,
    ) -> Neighbours:
        index, queries = storage_of(self._index, queries)
        if isinstance(index, faiss.IndexIVF) and rows is not None:
            if 0 < len(rows) * _GATHER_FACTOR <= index.ntotal:
                return self._search_gathered(index, queries, k, rows)
        if allow is None and len(queries) >= _PRODUCT_QUERIES and is_product(index):
            return self._search_product(index, queries, k)
        selector, _held = exact_selector(index, allow, rows)
        params = params_of(index, 0, getattr(index, "nlist", 1), selector)
        return self._search_small_batches(index, queries, k, params)

    def _search_product(self, index: Any, queries: NDArray[np.float32], k: int) -> Neighbours:
        """Scores only the rows that may be among the best of any query."""
        if self._product is None:
            stored = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
            self._product = MatrixScan(stored.reshape(index.ntotal, index.d))
        parts = []
        for at in range(0, len(queries), MAX_QUERIES):
            some = queries[at : at + MAX_QUERIES]
            rows = self._product.candidates(some, k)
            if 2 * len(rows) > index.ntotal:
                return self._search_small_batches(index, queries, k, None)
            parts.append(self._search_gathered(index, some, k, rows))
        return stack(parts)

    def _search_gathered(
        self, index: Any, queries: NDArray[np.float32], k: int, rows: NDArray[np.int64]
    ) -> Neighbours:
        gathered = faiss.IndexFlat(index.d, index.metric_type)
        gathered.add(index.reconstruct_batch(rows))
        places, scores = self._search_small_batches(gathered, queries, k, None)[:2]
        return Neighbours(np.where(places >= 0, rows[places], -1), scores)

    def _search_small_batches(
        self, index: Any, queries: NDArray[np.float32], k: int, params: Any
    ) -> Neighbours:
        """Searches so few queries at once that each scores exactly as it does alone."""
        step = max(1, (_BLAS_COMPONENTS - 1) // queries.shape[1])
        cuts = [queries[at : at + step] for at in range(0, len(queries), step)]
        return stack([self._search_with_ties(index, cut, k, params) for cut in cuts])

    def _search_with_ties(
        self, index: Any, queries: NDArray[np.float32], k: int, params: Any
    ) -> Neighbours:
        rows = self._info.rows
        limit = min(k + _TIE_SLACK, rows)
        while True:
            ids, scores = self._search(index, queries, limit, params)
            full = limit == rows or limit >= k + _TIE_LIMIT
            # Ties are complete once the last score found is below the k-th.
            if full or not ((scores[:, -1] == scores[:, k - 1]) & (ids[:, -1] >= 0)).any():
                return sort_ties(ids, scores)
            limit = min(k + 4 * (limit - k), k + _TIE_LIMIT, rows)

    def _plan(self, params: SearchParams, limit: int, allow: NDArray[np.uint8] | None) -> Any:
        # A graph search narrower than k would return fewer than k rows.
        ef = max(params.ef_search or self._default_ef, math.ceil(limit * self.refine_factor))
        nprobe = params.nprobe or self._default_nprobe
        if allow is not None:
            # A selector without widths would reset them to faiss's defaults of 16 and 1.
            return params_of(self._index, ef, nprobe, _keywords.IDSelectorBitmap(allow))
        cached = self._params.get((ef, nprobe))
        if cached is None:
            cached = params_of(self._index, ef, nprobe, None)
            if len(self._params) < 256:
                self._params[ef, nprobe] = cached
        return cached

    def _search(
        self, index: Any, queries: NDArray[np.float32], k: int, params: Any
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        scores, ids = index.search(queries, k, params=params)
        if self._negate:
            scores = -scores
        # Empty places come last.
        if ids[:, -1].min() < 0:
            scores[ids < 0] = -np.inf
        return ids, scores

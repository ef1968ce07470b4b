"""The layers of a FAISS index: what wraps what, the parameters of each, and where vectors lie."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

# The module without its stubs, which lack keyword arguments of constructors.
_keywords: Any = faiss
_downcast: Any = faiss.downcast_index
# From this many rows on, a matrix product may select the few that are scored one by one.
PRODUCT_ROWS = 4_096

# The search parameters that an index, or one that it wraps, supports.
KNOBS = (
    (faiss.IndexHNSW, "ef_search"),
    (faiss.IndexIVF, "nprobe"),
    ((faiss.IndexHNSW, faiss.IndexIVF, faiss.IndexFlatCodes, faiss.IndexRefine), "exact"),
)


# What FAISS copies to a GPU; the last needs cuVS.
GPU_KINDS = (
    _keywords.IndexIVFFlat,
    _keywords.IndexIVFScalarQuantizer,
    _keywords.IndexIVFPQ,
    _keywords.IndexHNSWCagra,
)


def layers_of(index: Any) -> list[Any]:
    """Returns the index and those that it wraps, outermost first."""
    if isinstance(index, faiss.IndexPreTransform):
        return [index, *layers_of(_downcast(index.index))]
    if isinstance(index, faiss.IndexRefine):
        return [index, *layers_of(_downcast(index.base_index))]
    return [index]


def ranks_int8(index: Any) -> bool:
    if not isinstance(index, faiss.IndexHNSW):
        return False
    storage = _downcast(index.storage)
    return (
        isinstance(storage, faiss.IndexScalarQuantizer)
        and storage.sq.qtype == faiss.ScalarQuantizer.QT_8bit_direct_signed
    )


def params_of(index: Any, ef: int, nprobe: int, selector: Any) -> Any:
    """Returns the parameters of an index with all values explicit."""
    if isinstance(index, faiss.IndexPreTransform):
        inner = params_of(_downcast(index.index), ef, nprobe, selector)
        return _keywords.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexRefine):
        inner = params_of(_downcast(index.base_index), ef, nprobe, selector)
        return _keywords.IndexRefineSearchParameters(
            k_factor=index.k_factor, base_index_params=inner
        )
    if isinstance(index, faiss.IndexHNSW):
        return _keywords.SearchParametersHNSW(efSearch=ef, sel=selector)
    if isinstance(index, faiss.IndexIVF):
        return _keywords.SearchParametersIVF(nprobe=min(nprobe, index.nlist), sel=selector)
    return None if selector is None else _keywords.SearchParameters(sel=selector)


def storage_of(index: Any, queries: NDArray[np.float32]) -> tuple[Any, NDArray[np.float32]]:
    """Returns the part of an index that a full scan reads, and the queries transformed for it."""
    if isinstance(index, faiss.IndexPreTransform):
        chain: Any = index.chain
        for number in range(chain.size()):
            queries = faiss.downcast_VectorTransform(chain.at(number)).apply(queries)
        return storage_of(_downcast(index.index), queries)
    if isinstance(index, faiss.IndexRefine):
        return storage_of(_downcast(index.refine_index), queries)
    if isinstance(index, faiss.IndexHNSW):
        return _downcast(index.storage), queries
    if isinstance(index, faiss.IndexIVF | faiss.IndexFlatCodes):
        return index, queries
    raise TypeError(f"{type(index).__name__} cannot be scanned. This is a bug.")


def is_product(index: Any) -> bool:
    """Returns whether scores are inner products with many vectors in uncompressed memory."""
    product = index.metric_type == faiss.METRIC_INNER_PRODUCT
    return index.ntotal >= PRODUCT_ROWS and product and isinstance(index, faiss.IndexFlat)


def exact_selector(
    index: Any, allow: NDArray[np.uint8] | None, rows: NDArray[np.int64] | None
) -> tuple[Any, Any]:
    """Returns the selector for a scan, and the array that must stay alive with it."""
    if allow is None:
        return None, None
    if isinstance(index, faiss.IndexFlat):
        # Reads only the allowed rows. With compressed storage, it would decode them one by one.
        if rows is None:
            rows = np.flatnonzero(np.unpackbits(allow, bitorder="little")).astype(np.int64)
            rows = rows[rows < index.ntotal]
        return _keywords.IDSelectorArray(rows), rows
    return _keywords.IDSelectorBitmap(allow), allow

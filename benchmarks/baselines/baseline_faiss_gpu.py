"""Baseline of `python -m benchmarks.gpu`: FAISS's own exact search on a GPU, without a server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

# The stubs of faiss have no classes for GPUs.
_faiss: Any = faiss
_BLOCK_ROWS = 1 << 18


def faiss_flat(
    vectors: Callable[[], NDArray[np.float32]],
    queries: NDArray[np.float32],
    k: int,
    batch: int,
    seconds: float,
) -> tuple[NDArray[np.int64], NDArray[np.float32], float]:
    """Searches vectors that a GPU holds as float16; to be called in a process of its own.

    Args:
        vectors: Returns the vectors: (rows, dim) float32.
        queries: (n, dim) float32.
        k: Results per query.
        batch: Queries of a call.
        seconds: Duration.
    Returns: Rows and scores of the first batch, (batch, k), and queries per second.
    """
    resources, config = _faiss.StandardGpuResources(), _faiss.GpuIndexFlatConfig()
    config.useFloat16 = True
    stored = vectors()
    index = _faiss.GpuIndexFlatIP(resources, stored.shape[1], config)
    for first in range(0, len(stored), _BLOCK_ROWS):
        index.add(np.ascontiguousarray(stored[first : first + _BLOCK_ROWS]))
    scores, rows = index.search(queries[:batch], k)
    count, start = 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        at = count % len(queries)
        index.search(queries[at : at + batch], k)
        count += len(queries[at : at + batch])
    return rows, scores, count / (time.perf_counter() - start)

"""Baseline of `python -m benchmarks.gpu`: FAISS's own exact search on a GPU, without a server."""

from __future__ import annotations

import time
from typing import Any

import faiss
import numpy as np

from benchmarks.workloads.closed_loop import SearchTask, exact_answers, mean_recall

# The stubs of faiss have no classes for GPUs.
_faiss: Any = faiss
_BLOCK_ROWS = 1 << 18


def faiss_gpu_flat(task: SearchTask, seconds: float) -> tuple[float, float] | None:
    """Searches vectors that a GPU holds as float16, in batches; in a process of its own.

    Returns: Queries per second, and recall; None if the installed FAISS is built for CPUs.
    """
    if not hasattr(_faiss, "GpuIndexFlatIP"):
        return None
    resources, config = _faiss.StandardGpuResources(), _faiss.GpuIndexFlatConfig()
    config.useFloat16 = True
    stored, queries = np.load(task.folder / "base.npy", mmap_mode="r"), exact_answers(task)
    index = _faiss.GpuIndexFlatIP(resources, stored.shape[1], config)
    for first in range(0, len(stored), _BLOCK_ROWS):
        index.add(np.ascontiguousarray(stored[first : first + _BLOCK_ROWS]))
    _, rows = index.search(queries["queries"], task.k)
    found = [(number, [f"{row:09d}" for row in one]) for number, one in enumerate(rows)]
    count, start = 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        at = count % (len(queries["queries"]) - task.batch + 1)
        index.search(queries["queries"][at : at + task.batch], task.k)
        count += task.batch
    return count / (time.perf_counter() - start), mean_recall(task, found)

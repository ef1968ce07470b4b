"""Baseline of `nearline bench search`: FAISS in process, without a server."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import faiss

from benchmarks.workloads.closed_loop import SearchTask, exact_answers
from benchmarks.workloads.retrieval_dataset import index_file
from retrieval.index.vectors.int8_codec import scale_queries

# The stubs of faiss do not know its constructors' keywords.
_faiss: Any = faiss
# Loaded once by the measuring process.
_cache: dict[str, Any] = {}


def faiss_round(task: SearchTask, seconds: float) -> float:
    """Searches for this many seconds, in the task's threads; returns queries per second."""
    index, queries = _index(task), exact_answers(task)["queries"]
    params = search_params(index, task.ef)
    if isinstance(index, faiss.IndexRefine):
        # Scores are ignored, and scaling does not change the order.
        queries, _ = scale_queries(queries)
    counts = [0] * task.threads
    end = time.perf_counter() + seconds

    def search(thread: int) -> None:
        faiss.omp_set_num_threads(1)
        first = thread * len(queries) // task.threads
        for number in itertools.count(first, task.batch):
            row = number % (len(queries) - task.batch + 1)
            index.search(queries[row : row + task.batch], task.k, params=params)
            counts[thread] += task.batch
            if time.perf_counter() >= end:
                return

    threads = [threading.Thread(target=search, args=(n,)) for n in range(task.threads)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


def search_params(index: Any, ef: int) -> Any:
    """Returns the search parameters of a graph, also before a refine stage; None if there is
    none.
    """
    if isinstance(index, _faiss.IndexHNSW):
        return _faiss.SearchParametersHNSW(efSearch=ef)
    if isinstance(index, _faiss.IndexRefine):
        inner = search_params(_faiss.downcast_index(index.base_index), ef)
        return inner and _faiss.IndexRefineSearchParameters(
            k_factor=index.k_factor, base_index_params=inner
        )
    return None


def _index(task: SearchTask) -> Any:
    if "index" not in _cache:
        _cache["index"] = faiss.read_index(str(index_file(task)))
    return _cache["index"]

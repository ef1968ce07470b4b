"""Exact search on the GPU without gRPC: what its worker process finds, and what the CPU proves."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu_parts.flat_snapshot import FlatSnapshot
from benchmarks.gpu_parts.session import K
from nearline.errors import NotReady
from retrieval.index.gpu.device import GpuDevice
from retrieval.index.gpu.device_data import DeviceVectors
from retrieval.index.gpu.gpu_index import GpuIndex, GpuPart
from retrieval.index.vectors.faiss_index import FaissIndex, use_one_thread
from retrieval.protocols import metrics

_START_S = 180.0
# As `retrieval.index.gpu.gpu_index` asks for ten results.
_CANDIDATES = 32
_THREADS = 6
# Memory of a CPU that stands in for a GPU.
_CPU_MEMORY_BYTES = 1 << 30


class DeviceRates(NamedTuple):
    """The rates and results of a device.

    scan_qps: Queries per second for candidates. qps: For proven results. batch: Queries of a call,
    on average. rows, scores: Results of the first batch.
    """

    scan_qps: float
    qps: float
    batch: float
    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


def search_alone(
    snapshot: FlatSnapshot,
    name: str,
    queries: NDArray[np.float32],
    batch: int,
    seconds: float,
) -> DeviceRates:
    """Searches from several threads, in a process without other work.

    Args:
        name: The torch device.
        queries: (n, dim) float32 of unit length.
        batch: Queries of each search.
        seconds: Of each measurement.
    Raises: NotReady: the device cannot hold the vectors.
    """
    index = FaissIndex.load(snapshot.index_file, "Flat", dim=snapshot.dim, rows=snapshot.rows)
    storage = index.storage()
    device = GpuDevice(name, memory_bytes=_CPU_MEMORY_BYTES if name == "cpu" else 0)
    try:
        device.wait_ready(_START_S)
        vectors = DeviceVectors("benchmark", storage, 0, snapshot.rows)
        device.load(vectors)
        if not vectors.held:
            raise NotReady(f"{device.reason or vectors.reason}; see nearline doctor")
        searcher = GpuIndex(index, [GpuPart(device, vectors)])
        halves = queries.astype(np.float16)

        def scan(at: int) -> None:
            device.submit(vectors, halves[at : at + batch], _CANDIDATES).result()

        def search(at: int) -> None:
            searcher.search(queries[at : at + batch], K, exact=True)

        first = searcher.search(queries[:batch], K, exact=True).found
        _rate(scan, len(queries), batch, seconds / 4)
        before = _batches(name)
        scan_qps = _rate(scan, len(queries), batch, seconds)
        calls, asked = (now - was for now, was in zip(_batches(name), before, strict=True))
        qps = _rate(search, len(queries), batch, seconds)
        return DeviceRates(scan_qps, qps, asked / max(calls, 1), first.ids, first.scores)
    finally:
        device.close()
        index.close()


def _rate(search: Callable[[int], None], queries: int, batch: int, seconds: float) -> float:
    """Returns the queries per second of several threads."""
    numbers = itertools.count()
    counts = [0] * _THREADS
    start = time.perf_counter()

    def run(thread: int) -> None:
        use_one_thread()
        while time.perf_counter() < start + seconds:
            search(next(numbers) * batch % queries)
            counts[thread] += batch

    threads = [threading.Thread(target=run, args=(number,)) for number in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


def _batches(device: str) -> tuple[float, float]:
    """Returns the calls of a device so far, and their queries."""
    (family,) = metrics.gpu_batch_queries.collect()
    totals = {
        one.name.rpartition("_")[2]: one.value
        for one in family.samples
        if device in one.labels.values() and "le" not in one.labels
    }
    return totals.get("count", 0.0), totals.get("sum", 0.0)

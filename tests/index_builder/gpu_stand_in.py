"""A worker whose GPU is the CPU, or fails as GPUs do.

The environment variable GPU_STAND_IN says how it behaves: works, absent, aborts, killed, full,
unallocated, poor, hangs or silent. Only the functions of the GPU libraries are made up; the work is
that of the real worker.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from index_builder.execution import gpu_memory
from index_builder.indexes import faiss_writer, gpu_worker, shard_builder
from nearline.workers.process import Message, serve_calls

_faiss: Any = faiss
BEHAVIOUR = "GPU_STAND_IN"


class Cagra:
    """In place of `faiss.GpuIndexCagra`: builds an `IndexHNSWCagra` on the CPU."""

    def __init__(self, resources: object, dim: int, metric: int, config: Config) -> None:
        assert metric == faiss.METRIC_INNER_PRODUCT
        assert config.intermediate_graph_degree == 2 * config.graph_degree
        self._degree = config.graph_degree

    def train(self, vectors: np.ndarray[Any, Any]) -> None:
        """Takes the vectors, or fails."""
        behaviour = os.environ[BEHAVIOUR]
        if behaviour == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if behaviour == "hangs":
            threading.Event().wait()
        if behaviour == "unallocated":
            raise RuntimeError("StandardGpuResources: alloc fail type FlatData dev 0")
        self._vectors = vectors

    def copyTo(self, index: Any) -> None:
        """Fills a CPU index; its base level has neighbours at random if the graph is poor."""
        assert index.hnsw.nb_neighbors(0) == self._degree
        index.add(self._vectors)
        if os.environ[BEHAVIOUR] == "poor":
            links = index.hnsw.neighbors
            array = faiss.rev_swig_ptr(links.data(), links.size())
            array[:] = np.random.default_rng(1).integers(0, len(self._vectors), len(array))


class Config:
    """In place of `faiss.GpuIndexCagraConfig`."""

    graph_degree, intermediate_graph_degree = 64, 128


def _count() -> int:
    behaviour = os.environ[BEHAVIOUR]
    if behaviour == "aborts":
        print("Faiss assertion 'err__ == cudaSuccess' failed: CUDA error 999", file=sys.stderr)
        sys.stderr.flush()
        os.abort()
    return 0 if behaviour == "absent" else 2


def pretend(monkeypatch: pytest.MonkeyPatch, behaviour: str = "works") -> None:
    """Makes builds of this process believe in a wheel for GPUs, whose workers are stand-ins."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv(BEHAVIOUR, behaviour)
    monkeypatch.setattr(shard_builder, "WORKER", "tests.index_builder.gpu_stand_in")
    monkeypatch.setattr(shard_builder, "LEAST_VECTORS", 1_000)
    monkeypatch.setattr(faiss_writer, "HAS_GPU_SUPPORT", True)
    monkeypatch.setattr(faiss_writer, "HAS_CAGRA", True)


def install() -> None:
    """Adds the functions of a GPU wheel to faiss, in this process."""
    _faiss.get_num_gpus = _count
    _faiss.StandardGpuResources = object
    _faiss.index_cpu_to_gpu = lambda resources, number, index: index
    _faiss.GpuIndexCagra, _faiss.GpuIndexCagraConfig = Cagra, Config
    free = (1 << 20) if os.environ[BEHAVIOUR] == "full" else (80 << 30)
    gpu_memory.free_bytes = lambda driver=None: free


if __name__ == "__main__":
    install()
    if os.environ[BEHAVIOUR] == "silent":
        gpu_worker.HANDLERS["graph"] = lambda call: Message({})
    serve_calls(gpu_worker.HANDLERS)

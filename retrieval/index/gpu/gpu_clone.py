"""Approximate search by a copy of an index on a GPU, for vectors that do not fit as float16.

FAISS copies inverted lists (IVF with flat, scalar or product quantizers) and, with cuVS, graphs of
CAGRA. The CPU scores the candidates again, so scores are those of the index on the CPU.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from retrieval.index.filtering.planner import Matches
from retrieval.index.gpu.device import GpuDevice, NotOnDevice
from retrieval.index.gpu.device_data import DeviceIndex
from retrieval.index.gpu.gpu_index import GpuResult
from retrieval.index.vectors.faiss_index import FaissIndex
from retrieval.index.vectors.vector_index import fit_to_k, sort_ties

# Limits of FAISS, and of CAGRA, which keeps twice as many candidates.
_MAX_WIDTH, _MAX_GRAPH_WIDTH = 2_048, 256
_LEAST_WIDTH = 32
# With more hidden rows than this share, too many candidates would be dropped.
_LEAST_ALIVE = 0.9
_WRONG = "its scores are no numbers"


class GpuClone:
    """A copy of an index on one GPU; may be used from several threads. It has no exact search.

    Args:
        index: The index on the CPU, by inner product.
        device: The GPU.
        data: The copy.
    """

    exact = False

    def __init__(self, index: FaissIndex, device: GpuDevice, data: DeviceIndex) -> None:
        self._storage = index.storage()
        self._device = device
        # Of the requested rows; the CPU scores so many of a compressed index again, too.
        self._factor = max(2.0, index.refine_factor)
        lists = "nprobe" in index.describe().knobs
        self._most = _MAX_WIDTH if lists else _MAX_GRAPH_WIDTH
        self._data = data

    @property
    def answers(self) -> bool:
        """Whether the device answers."""
        return not self._device.reason

    def search(
        self, queries: NDArray[np.float32], k: int, among: Matches | None = None, *, exact: bool
    ) -> GpuResult:
        """Finds about the k best rows; blocks. See `GpuIndex.search`.

        Raises: NotOnDevice: k is too large, many rows are excluded, or the GPU cannot answer; the
            index on the CPU can.
        """
        share = 1.0 if among is None else among.count / self._storage.rows
        width = max(_LEAST_WIDTH, 1 << math.ceil(math.log2(self._factor * k)))
        if width > self._most or share < _LEAST_ALIVE:
            raise NotOnDevice("too many rows are requested or excluded", fault=False)
        try:
            near = self._device.submit(self._data, queries, width).result()
        except NotOnDevice as error:
            raise NotOnDevice(f"GPU {self._device.name}: {error}", fault=error.fault) from error
        asked = self._storage.transformed(queries)
        scores = self._storage.scores(asked, near.rows)
        # Scores of quantizers may be far off, and those that count are the CPU's; a device that
        # computes wrong costs recall, which is monitored.
        if not np.isfinite(near.scores[near.rows >= 0]).all():
            self._device.fail(_WRONG)
            raise NotOnDevice(f"GPU {self._device.name}: {_WRONG}", fault=True)
        rows = near.rows
        if among is not None:
            alive = (rows >= 0) & among.chunks[rows]
            rows, scores = np.where(alive, rows, -1), np.where(alive, scores, -np.inf)
        order = np.argsort(-scores, axis=1, kind="stable")
        rows = np.take_along_axis(rows, order, axis=1)
        scores = np.take_along_axis(scores, order, axis=1)
        return GpuResult(fit_to_k(sort_ties(rows, scores), k), np.empty(0, np.int64))

    def close(self) -> None:
        """Frees the memory of the device; no search may be running."""
        self._device.drop(self._data)

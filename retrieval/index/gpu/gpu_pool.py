"""The GPUs of a process, and which of them holds the vectors of which shard."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from embedding.devices import CPU, named_devices, resolve_devices
from nearline.workers.process import WorkerCommand
from retrieval.index.filtering.planner import Matches
from retrieval.index.gpu.device import GpuDevice, NotOnDevice
from retrieval.index.gpu.device_data import DeviceIndex, DeviceVectors
from retrieval.index.gpu.gpu_index import GpuIndex, GpuPart, GpuResult
from retrieval.index.vectors.faiss_index import FaissIndex
from retrieval.index.vectors.vector_index import fit_to_k, sort_ties

# Limits of FAISS, and of CAGRA, which keeps twice as many candidates.
_MAX_WIDTH, _MAX_GRAPH_WIDTH = 2_048, 256
_LEAST_WIDTH = 32
# With more hidden rows than this share, too many candidates would be dropped.
_LEAST_ALIVE = 0.9
_WRONG = "its scores are no numbers"


class GpuClone:
    """A copy of an index on one GPU, for vectors that do not fit as float16; always approximate.

    FAISS copies inverted lists (IVF with flat, scalar or product quantizers) and, with cuVS, graphs
    of CAGRA. The CPU scores the candidates again, so scores are those of the index on the CPU. It
    may be used from several threads.

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


GpuSearcher: TypeAlias = GpuIndex | GpuClone
# The first start imports torch.
_START_S = 180.0
# Bitmaps of rows are cut at whole bytes.
_ROWS_PER_BYTE = 8


class PlacedIndex:
    """An index that has, or waits for, a place on GPUs; may be used from several threads.

    Args:
        pool: The pool that places it.
        index: The index on the CPU.
        path: Its file.
        name: For log lines and errors.

    searcher: Searches it on GPUs; None while it has no place. Another takes its place when there is
    more room.
    """

    def __init__(self, pool: GpuPool, index: FaissIndex, path: Path, name: str) -> None:
        self.index = index
        self.path = path
        self.name = name
        self.searcher: GpuSearcher | None = None
        self.closed = False
        self._pool = pool

    @property
    def fault(self) -> str:
        """Why GPUs that might have room are away; empty if it has a place, or none of them is."""
        return "" if self.searcher is not None else self._pool.fault

    @property
    def scans(self) -> bool:
        """Whether exact searches are computed on GPUs now."""
        searcher = self.searcher
        return searcher is not None and searcher.exact and searcher.answers

    def close(self) -> None:
        """Frees the memory of the GPUs; no search may be running."""
        self._pool.release(self)


def start_copier(device: GpuDevice) -> GpuDevice:
    """Starts the process in which FAISS copies indexes to the GPU of a device."""
    number = device.name.partition(":")[2] or "0"
    command = WorkerCommand("retrieval.index.gpu.faiss_worker", [number], channels=2)
    return GpuDevice(device.name, command=command, memory=device)


class GpuPool:
    """Places indexes on GPUs.

    Vectors that fit into no GPU as float16 are divided among several. If they do not fit at all,
    FAISS copies the index where it can. What has no place, or only that of a copy, is placed again
    whenever memory becomes free, or a GPU answers again.

    Args:
        devices: At least one.
        start_copier: Starts the process in which FAISS copies indexes to the GPU of a device.
    """

    def __init__(
        self,
        devices: Sequence[GpuDevice],
        start_copier: Callable[[GpuDevice], GpuDevice] = start_copier,
    ) -> None:
        self._devices = devices
        self._start_copier = start_copier
        # Held while an index is placed or released; guards the fields below.
        self._lock = threading.RLock()
        self._copiers: dict[GpuDevice, GpuDevice] = {}
        self._placed: list[PlacedIndex] = []
        self._closed = False
        for device in devices:
            device.answers_again = self._place_soon

    @property
    def fault(self) -> str:
        """Which GPUs are away, and why; empty if none is."""
        away = [(device.name, device.reason) for device in self._devices]
        return "; ".join(f"GPU {name}: {reason}" for name, reason in away if reason)

    def attach(self, index: FaissIndex, path: Path, name: str) -> PlacedIndex | None:
        """Places an index on GPUs; blocks while its vectors are copied.

        Args:
            index: The index; it must be closed after the result.
            path: Its file.
            name: Name of the vectors, for log lines and errors.
        Returns: None if the index has no vectors, or is not by inner product.
        """
        storage = index.storage()
        if not storage.rows or not storage.inner_product:
            return None
        for device in self._devices:
            device.wait_ready(_START_S)
        placed = PlacedIndex(self, index, path, name)
        with self._lock:
            self._placed.append(placed)
            self._place(placed)
        return placed

    def release(self, placed: PlacedIndex) -> None:
        """Frees the memory of an index."""
        placed.closed = True
        with self._lock:
            self._placed.remove(placed)
            if placed.searcher is not None:
                placed.searcher.close()
        self._place_soon()

    def close(self) -> None:
        """Ends all processes."""
        self._closed = True
        for device in (*self._devices, *self._copiers.values()):
            device.close()

    def _place_soon(self) -> None:
        threading.Thread(target=self._place_waiting, name="gpu-place", daemon=True).start()

    def _place_waiting(self) -> None:
        with self._lock:
            for placed in self._placed:
                if not self._closed and not isinstance(placed.searcher, GpuIndex):
                    self._place(placed)

    def _place(self, placed: PlacedIndex) -> None:
        """Gives an index the best place that there is, if that is better than the one it has."""
        old = placed.searcher
        new: GpuSearcher | None = self._divide(placed)
        if new is None and old is None and placed.index.copies_to_gpu:
            new = self._copy(placed)
        if new is None:
            return
        placed.searcher = new
        if old is not None:
            old.close()

    def _divide(self, placed: PlacedIndex) -> GpuIndex | None:
        """Copies the vectors to the devices that have room; None if there is not enough."""
        storage = placed.index.storage()
        parts: list[GpuPart] = []
        first = 0
        for device, rows in self._shares(storage.rows, storage.dim):
            cancelled = partial(getattr, placed, "closed")
            vectors = DeviceVectors(placed.name, storage, first, rows, cancelled)
            parts.append(GpuPart(device, vectors))
            first += rows
            device.load(vectors)
            if not vectors.held:
                for part in parts:
                    part.device.drop(part.vectors)
                return None
        return GpuIndex(placed.index, parts) if parts else None

    def _copy(self, placed: PlacedIndex) -> GpuClone | None:
        answering = [device for device in self._devices if not device.reason]
        if not answering:
            return None
        device = max(answering, key=lambda one: one.free_bytes() or 0)
        copier = self._copiers.get(device)
        if copier is None:
            copier = self._copiers[device] = self._start_copier(device)
            copier.wait_ready(_START_S)
        info = placed.index.describe()
        data = DeviceIndex(placed.name, placed.path, info.rows, info.nprobe)
        copier.load(data)
        if not data.held:
            copier.drop(data)
            return None
        return GpuClone(placed.index, copier, data)

    def _shares(self, rows: int, dim: int) -> list[tuple[GpuDevice, int]]:
        """Returns which device is to hold how many rows; none if there is not enough memory."""
        row_bytes = DeviceVectors.row_bytes(dim)
        free = [(device.free_bytes() or 0) // row_bytes for device in self._devices]
        by_room = sorted(zip(free, self._devices, strict=True), key=lambda one: -one[0])
        if by_room[0][0] >= rows:
            return [(by_room[0][1], rows)]
        shares = []
        for room, device in by_room:
            # All but the last part end at a whole byte.
            taken = rows if rows <= room else room // _ROWS_PER_BYTE * _ROWS_PER_BYTE
            if taken:
                shares.append((device, taken))
                rows -= taken
        return [] if rows else shares


def open_pool(device: str, memory_bytes: int = 0) -> GpuPool | None:
    """Starts the GPUs of a setting; None if there is none.

    A named GPU that cannot be used is tried again in the background, and answers say so: the CPU
    can answer all searches.

    Args:
        device: See `embedding.devices.resolve_devices`.
        memory_bytes: Most memory of each GPU for vectors; 0: what is free.
    Raises: SettingsError: it is no device, or all GPUs are asked for, and there is none.
    """
    names = named_devices(device) or resolve_devices(device)
    if names == (CPU,):
        return None
    return GpuPool([GpuDevice(name, memory_bytes=memory_bytes) for name in names])

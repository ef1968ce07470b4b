"""The GPUs of a process, and which of them holds the vectors of which shard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from embedding.devices import CPU, named_devices, resolve_devices
from nearline.workers.process import WorkerCommand
from retrieval.index.gpu.device import GpuDevice
from retrieval.index.gpu.device_data import DeviceIndex, DeviceVectors
from retrieval.index.gpu.gpu_clone import GpuClone
from retrieval.index.gpu.gpu_index import GpuIndex, GpuPart
from retrieval.index.vectors.faiss_index import FaissIndex

GpuSearcher: TypeAlias = GpuIndex | GpuClone
# The first start imports torch.
_START_S = 180.0
# Bitmaps of rows are cut at whole bytes.
_ROWS_PER_BYTE = 8


def start_copier(device: GpuDevice) -> GpuDevice:
    """Starts the process in which FAISS copies indexes to the GPU of a device."""
    number = device.name.partition(":")[2] or "0"
    command = WorkerCommand("retrieval.index.gpu.faiss_worker", [number], channels=2)
    return GpuDevice(device.name, free=device.free_bytes, command=command)


class GpuPool:
    """Places the vectors of shards on GPUs; blocks, and belongs to the thread that loads shards.

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
        self._copiers: dict[GpuDevice, GpuDevice] = {}

    def attach(self, index: FaissIndex, path: Path, name: str) -> GpuSearcher | None:
        """Loads the vectors of an index into the memory of GPUs.

        Vectors that fit into none as float16 are divided among several. If they do not fit at all,
        FAISS copies the index where it can. What does not fit either is loaded once there is room;
        the index on the CPU answers until then.

        Args:
            index: The index; it must be closed after the result.
            path: Its file.
            name: Name of the vectors, for log lines and errors.
        Returns: None if the index has no vectors, or is not by inner product.
        """
        storage = index.storage()
        if not storage.rows or not storage.inner_product:
            return None
        shares = self._shares(storage.rows, storage.dim)
        if not shares and index.copies_to_gpu:
            return self._clone(index, path, name)
        parts = []
        first = 0
        for device, rows in shares or [(self._devices[0], storage.rows)]:
            vectors = DeviceVectors(name, storage, first, rows)
            device.load(vectors)
            parts.append(GpuPart(device, vectors))
            first += rows
        return GpuIndex(index, parts)

    def close(self) -> None:
        """Ends all processes."""
        for device in (*self._copiers.values(), *self._devices):
            device.close()

    def _clone(self, index: FaissIndex, path: Path, name: str) -> GpuClone:
        info = index.describe()
        device = max(self._devices, key=lambda one: one.free_bytes() or 0)
        copier = self._copiers.get(device)
        if copier is None:
            copier = self._copiers[device] = self._start_copier(device)
            copier.wait_ready(_START_S)
        data = DeviceIndex(name, path, info.rows, info.nprobe)
        copier.load(data)
        return GpuClone(index, copier, data)

    def _shares(self, rows: int, dim: int) -> list[tuple[GpuDevice, int]]:
        """Returns which device holds how many rows; none if there is not enough memory."""
        free = []
        for device in self._devices:
            device.wait_ready(_START_S)
            free.append((device.free_bytes() or 0) // DeviceVectors.row_bytes(dim))
        by_room = sorted(zip(free, self._devices, strict=True), key=lambda one: -one[0])
        if by_room[0][0] >= rows:
            return [(by_room[0][1], rows)]
        if sum(free) < rows:
            return []
        shares = []
        for room, device in by_room:
            taken = min(rows, room // _ROWS_PER_BYTE * _ROWS_PER_BYTE)
            if taken:
                shares.append((device, taken))
                rows -= taken
        if rows:
            # What rounding left over; a device without room for so few refuses, and says so.
            device, taken = shares[-1]
            shares[-1] = device, taken + rows
        return shares


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

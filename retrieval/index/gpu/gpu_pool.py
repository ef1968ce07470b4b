"""The GPUs of a process, and which of them holds the vectors of which shard."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from embedding.devices import AUTO, CPU, torch_cuda
from nearline.errors import SettingsError
from retrieval.index.gpu.device import GpuDevice
from retrieval.index.gpu.device_vectors import DeviceVectors
from retrieval.index.gpu.gpu_index import GpuIndex, GpuPart
from retrieval.index.vectors.faiss_index import FaissIndex

_CUDA = re.compile(r"cuda(:\d+)?")
# The first start imports torch.
_START_S = 180.0
# Bitmaps of rows are cut at whole bytes.
_ROWS_PER_BYTE = 8
_log = logging.getLogger(__name__)


class GpuPool:
    """Places the vectors of shards on GPUs; blocks, and belongs to the thread that loads shards.

    Args:
        devices: At least one.
    """

    def __init__(self, devices: Sequence[GpuDevice]) -> None:
        self._devices = devices

    def attach(self, index: FaissIndex, name: str) -> GpuIndex | None:
        """Loads the vectors of an index into the memory of GPUs.

        An index that fits into none is divided among several. If it does not fit at all, it is
        loaded once there is room; the index on the CPU answers until then.

        Args:
            index: The index; it must be closed after the result.
            name: Name of the vectors, for log lines and errors.
        Returns: None if the index has no vectors, or is not by inner product.
        """
        storage = index.storage()
        if not storage.rows or not storage.inner_product:
            return None
        parts = []
        first = 0
        for device, rows in self._shares(storage.rows, storage.dim):
            vectors = DeviceVectors(name, storage, first, rows)
            device.load(vectors)
            parts.append(GpuPart(device, vectors))
            first += rows
        return GpuIndex(index, parts)

    def close(self) -> None:
        """Ends all processes."""
        for device in self._devices:
            device.close()

    def _shares(self, rows: int, dim: int) -> list[tuple[GpuDevice, int]]:
        """Returns which device holds how many rows."""
        free = []
        for device in self._devices:
            device.wait_ready(_START_S)
            free.append((device.free_bytes() or 0) // DeviceVectors.row_bytes(dim))
        by_room = sorted(zip(free, self._devices, strict=True), key=lambda one: -one[0])
        if by_room[0][0] >= rows or sum(free) < rows:
            return [(by_room[0][1], rows)]
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

    A named GPU that cannot be used is tried again in the background, and answers say so.

    Args:
        device: "auto", "cpu", or GPUs such as "cuda:0,cuda:1".
        memory_bytes: Most memory of each GPU for vectors; 0: what is free.
    Raises: SettingsError: the setting is something else.
    """
    names = list(dict.fromkeys(part.strip() for part in device.split(",")))
    if names == [CPU]:
        return None
    if names == [AUTO]:
        if not torch_cuda():
            return None
        first = GpuDevice("cuda:0", memory_bytes=memory_bytes)
        if first.wait_ready(_START_S):
            return GpuPool([first])
        _log.info("no GPU is used", extra={"reason": first.reason})
        first.close()
        return None
    for name in names:
        if not _CUDA.fullmatch(name):
            raise SettingsError(
                f"device {name!r} is unknown; use auto, cpu, or GPUs such as cuda:0,cuda:1"
            )
    return GpuPool([GpuDevice(name, memory_bytes=memory_bytes) for name in names])

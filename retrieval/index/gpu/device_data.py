"""The data of an index on a GPU, its vectors or a copy of the index, and how they get there."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from nearline.workers.process import WorkerError, WorkerProcess, WorkerUnavailable
from nearline.workers.supervisor import SupervisedWorker
from retrieval.index.gpu.channels import LOADS

if TYPE_CHECKING:
    # Imported late: a router without local shards runs without FAISS.
    from retrieval.index.vectors.faiss_storage import FaissStorage

_BYTES_PER_NUMBER = 2
_BLOCK_ROWS = 1 << 16
# Larger numbers, or sums of their products, could exceed the range of float16.
_LARGEST = 16.0
_CALL_S = 60.0
# A copy of an index is one call.
_COPY_S = 600.0
# What a copy by FAISS takes for intermediate results.
TEMPORARY_BYTES = 512 << 20
_numbers = itertools.count()


DeviceWorker: TypeAlias = WorkerProcess | SupervisedWorker


class DeviceData(ABC):
    """Data that a device is to hold.

    Args:
        name: For log lines and errors.
        rows: Number of vectors.
        size: Bytes that it takes on a device.

    key: Identifies the data in the worker. held: Whether the process of the device holds it.
    reason: Why it does not.
    """

    def __init__(self, name: str, rows: int, size: int) -> None:
        self.name = name
        self.rows = rows
        self.bytes = size
        self.key = str(next(_numbers))
        self.held = False
        self.reason = f"{name} is not loaded yet"

    def load(self, worker: DeviceWorker, free: int) -> None:
        """Copies the data to a device, unless it does not fit; blocks. Sets `held` and `reason`.

        Args:
            worker: The process that uses the device.
            free: Bytes that are free.
        Raises: WorkerError, WorkerUnavailable: the device failed.
        """
        self.held = False
        if self.bytes > free:
            self.reason = (
                f"{self.name} takes {self.bytes:,} bytes of the GPU, and {free:,} are free"
            )
            return
        try:
            self.reason = self.copy(worker)
        except WorkerError as error:
            self.reason = str(error)
            # What was copied of it would take memory that nothing counts.
            self.drop(worker)
            raise
        self.held = not self.reason

    def drop(self, worker: DeviceWorker) -> None:
        """Frees the memory of the device.

        Raises: WorkerError, WorkerUnavailable: the device failed.
        """
        self.held = False
        worker.call("drop", {"key": self.key}, timeout_s=_CALL_S, channel=LOADS)

    @abstractmethod
    def check(self, worker: DeviceWorker) -> None:
        """Checks that the device still holds the same data, as far as that can be found out.

        Raises: WorkerError, WorkerUnavailable: the device failed, or holds something else.
        """

    @abstractmethod
    def copy(self, worker: DeviceWorker) -> str:
        """Copies the data to a device; returns why that is not possible, or an empty text."""


class DeviceVectors(DeviceData):
    """A range of the vectors of an index, as float16.

    Args:
        name: For log lines and errors.
        storage: Where the vectors are read.
        first, rows: The range; `first` is a multiple of 8.
        cancelled: Returns whether they are no longer needed.

    longest: Length of the longest vector, once they are held.
    """

    # Of the numbers as integers: equal only if the device has every bit of them.
    _checksum = 0

    def __init__(
        self,
        name: str,
        storage: FaissStorage,
        first: int,
        rows: int,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(name, rows, rows * self.row_bytes(storage.dim))
        self.first = first
        self.longest = 0.0
        self._storage = storage
        self._cancelled = cancelled

    @staticmethod
    def row_bytes(dim: int) -> int:
        """Returns the memory that a vector takes on a device."""
        return dim * _BYTES_PER_NUMBER

    def copy(self, worker: DeviceWorker) -> str:
        """Copies the vectors block by block, until they are no longer needed."""
        size = {"key": self.key, "rows": self.rows, "dim": self._storage.dim}
        worker.call("create", size, timeout_s=_CALL_S, channel=LOADS)
        longest, checksum = 0.0, 0
        for at in range(0, self.rows, _BLOCK_ROWS):
            if self._cancelled():
                self.drop(worker)
                return f"{self.name} is closed"
            count = min(_BLOCK_ROWS, self.rows - at)
            block = self._storage.read(self.first + at, count)
            largest = float(np.abs(block).max())
            if not largest <= _LARGEST:
                self.drop(worker)
                return (
                    f"{self.name} has components up to {largest:g}; at most {_LARGEST:g} fit into "
                    "float16 with their products, so scale the vectors"
                )
            longest = max(longest, float(np.einsum("ij,ij->i", block, block).max()) ** 0.5)
            place = {"key": self.key, "first": at}
            halves = block.astype(np.float16)
            checksum += int(halves.view(np.int16).sum(dtype=np.int64))
            worker.call("fill", place, [halves], timeout_s=_CALL_S, channel=LOADS)
        self.longest, self._checksum = longest, checksum
        self.check(worker)
        return ""

    def check(self, worker: DeviceWorker) -> None:
        """Compares the sum of all bits with that of the vectors that were copied."""
        reply = worker.call("checksum", {"key": self.key}, timeout_s=_CALL_S, channel=LOADS)
        if reply.values["checksum"] != self._checksum:
            raise WorkerUnavailable(f"its memory does not hold {self.name} as it was copied")


class DeviceIndex(DeviceData):
    """A copy of an index by FAISS.

    Args:
        name: For log lines and errors.
        path: File of the index; it must not change.
        rows: Number of vectors.
        nprobe: Lists to search; 0 if it has none.
    """

    def __init__(self, name: str, path: Path, rows: int, nprobe: int) -> None:
        super().__init__(name, rows, path.stat().st_size + TEMPORARY_BYTES)
        self._path = path
        self._nprobe = nprobe

    def copy(self, worker: DeviceWorker) -> str:
        """Copies the index in one call."""
        values = {"key": self.key, "path": str(self._path.absolute()), "nprobe": self._nprobe}
        reply = worker.call("load", values, timeout_s=_COPY_S, channel=LOADS)
        refusal: str = reply.values["refusal"]
        return refusal

    def check(self, worker: DeviceWorker) -> None:
        """Checks nothing: FAISS does not give back what it holds."""

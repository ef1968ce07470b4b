"""Vectors of an index that a GPU holds, and how they get there."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nearline.worker_process import Message
from retrieval.index.gpu.worker import LOADS

if TYPE_CHECKING:
    # Imported late: a router without local shards runs without FAISS.
    from retrieval.index.vectors.faiss_storage import FaissStorage

_BYTES_PER_NUMBER = 2
_BLOCK_ROWS = 1 << 16
# Larger numbers, or sums of their products, could exceed the range of float16.
_LARGEST = 16.0
_CALL_S = 60.0
_numbers = itertools.count()


class Worker(Protocol):
    """A worker process of `retrieval.index.gpu.worker`."""

    def call(
        self,
        method: str,
        values: dict[str, Any],
        arrays: Sequence[NDArray[Any]] = (),
        *,
        timeout_s: float,
        channel: int,
    ) -> Message:
        """Calls a method of the worker; see `WorkerProcess.call`."""
        ...


@dataclass(slots=True, eq=False)
class DeviceVectors:
    """A range of the vectors of an index, to be held by a device.

    name: For log lines and errors. storage: Where the vectors are read. first, rows: The range;
    `first` is a multiple of 8.
    longest: Length of the longest vector, once they are held. refusal: Why the device does not hold
    them; empty if it does. closed: Whether they are no longer needed.
    """

    name: str
    storage: FaissStorage
    first: int
    rows: int
    longest: float = 0.0
    refusal: str = ""
    closed: bool = False
    key: str = field(default_factory=lambda: str(next(_numbers)))

    def __post_init__(self) -> None:
        self.forget()

    @property
    def bytes(self) -> int:
        """Memory that the vectors take on a device."""
        return self.rows * self.row_bytes(self.storage.dim)

    @staticmethod
    def row_bytes(dim: int) -> int:
        """Returns the memory that a vector takes on a device."""
        return dim * _BYTES_PER_NUMBER

    def forget(self) -> None:
        """Notes that no process holds the vectors."""
        self.refusal = f"{self.name} is not loaded yet"

    def load(self, worker: Worker, free: int) -> None:
        """Copies the vectors to a device, unless they do not fit; blocks.

        Args:
            worker: The process that uses the device.
            free: Bytes that are free for vectors.
        Raises: WorkerError, WorkerUnavailable: the device failed.
        """
        if self.bytes > free:
            self.refusal = (
                f"{self.name} takes {self.bytes:,} bytes as float16, and {free:,} are free for "
                "vectors"
            )
            return
        size = {"key": self.key, "rows": self.rows, "dim": self.storage.dim}
        worker.call("create", size, timeout_s=_CALL_S, channel=LOADS)
        longest = 0.0
        for at in range(0, self.rows, _BLOCK_ROWS):
            if self.closed:
                return
            count = min(_BLOCK_ROWS, self.rows - at)
            block = self.storage.read(self.first + at, count)
            largest = float(np.abs(block).max())
            if not largest <= _LARGEST:
                self.refusal = (
                    f"{self.name} has components up to {largest:g}; at most {_LARGEST:g} fit into "
                    "float16 with their products, so scale the vectors"
                )
                self.drop(worker)
                return
            longest = max(longest, float(np.einsum("ij,ij->i", block, block).max()) ** 0.5)
            place = {"key": self.key, "first": at}
            halves = block.astype(np.float16)
            worker.call("fill", place, [halves], timeout_s=_CALL_S, channel=LOADS)
        self.longest, self.refusal = longest, ""

    def drop(self, worker: Worker) -> None:
        """Frees the memory of the device.

        Raises: WorkerError, WorkerUnavailable: the device failed.
        """
        worker.call("drop", {"key": self.key}, timeout_s=_CALL_S, channel=LOADS)

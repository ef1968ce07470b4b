"""Holds vectors on one device and searches them: python -m retrieval.index.gpu.worker DEVICE.

Started by `GpuDevice`. Searches arrive on one channel and everything else on another, so that
loading does not delay searches.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from nearline.workers.process import Handler, Message, serve_calls
from retrieval.index.gpu.channels import HeldData

if TYPE_CHECKING:
    from retrieval.index.gpu.matrix import DeviceMatrix


class MatrixWorker:
    """The functions of the process.

    Args:
        device: A torch device.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._matrices: HeldData[DeviceMatrix] = HeldData()
        self._is_warm = False

    def handlers(self) -> dict[str, Handler]:
        """Returns the functions by name."""
        functions = (
            *(self.ready, self.memory, self.create, self.fill, self.checksum, self.search),
            *(self._matrices.keep, self._matrices.drop),
        )
        return {function.__name__: function for function in functions}

    def ready(self, call: Message) -> Message:
        """Uses the device once."""
        if not self._is_warm:
            self.warm()
            self._is_warm = True
        return Message({})

    def memory(self, call: Message) -> Message:
        """Returns the free and the total memory of the device, in bytes."""
        free, total = self.free_memory()
        return Message({"free": free, "total": total})

    def create(self, call: Message) -> Message:
        """Allocates vectors, by key: (rows, dim) float16, zeros."""
        values = call.values
        self._matrices.by_key[values["key"]] = self.new_matrix(values["rows"], values["dim"])
        return Message({})

    def fill(self, call: Message) -> Message:
        """Sets vectors from row `first` on."""
        self._matrices.by_key[call.values["key"]].fill(call.values["first"], call.arrays[0])
        return Message({})

    def checksum(self, call: Message) -> Message:
        """Returns the sum of the numbers of vectors, their bits read as integers."""
        return Message({"checksum": self._matrices.by_key[call.values["key"]].checksum()})

    def search(self, call: Message) -> Message:
        """Searches; the arrays are queries and an optional bitmap, see `DeviceMatrix.search`."""
        queries, *allow = call.arrays
        matrix = self._matrices.searched(call)
        return Message({}, matrix.search(queries, call.values["k"], *allow))

    # Torch is imported late, so that a reply says if it is missing or cannot use the device.

    def warm(self) -> None:
        """Searches a little on the device; see `matrix.warm`."""
        from retrieval.index.gpu.matrix import warm

        warm(self._device)

    def free_memory(self) -> tuple[int, int]:
        """Returns the free and the total memory; see `matrix.memory`."""
        from retrieval.index.gpu.matrix import memory

        return memory(self._device)

    def new_matrix(self, rows: int, dim: int) -> DeviceMatrix:
        """Returns vectors on the device."""
        from retrieval.index.gpu.matrix import DeviceMatrix

        return DeviceMatrix(rows, dim, self._device)


if __name__ == "__main__":
    serve_calls(MatrixWorker(sys.argv[1]).handlers())

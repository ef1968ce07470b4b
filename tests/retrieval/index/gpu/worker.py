"""A worker that computes with numpy, which starts fast: python -m … FOLDER.

It breaks as the files of the folder say.

wrong: scores are off. nan: scores are not numbers. memory: searches run out of memory. error: they
raise. hang: they never end. empty: the reply has no arrays. no memory to fill KEY, or no memory to
create KEY: as it says.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearline.workers.process import Message, serve_calls
from retrieval.index.gpu.worker import MatrixWorker


class OutOfMemoryError(Exception):
    pass


class _NumpyMatrix:
    """As `DeviceMatrix`."""

    def __init__(self, rows: int, dim: int) -> None:
        self._vectors = np.zeros((rows, dim), np.float16)

    def fill(self, first: int, block: NDArray[np.float16]) -> None:
        self._vectors[first : first + len(block)] = block

    def checksum(self) -> int:
        return int(self._vectors.view(np.int16).sum(dtype=np.int64))

    def search(
        self, queries: NDArray[np.float16], k: int, allow: NDArray[np.uint8] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        rows = np.arange(len(self._vectors))
        if allow is not None:
            rows = np.flatnonzero(np.unpackbits(allow, bitorder="little")[: len(rows)])
        wide = queries.astype(np.float32) @ self._vectors[rows].astype(np.float32).T
        scores = wide.astype(np.float16).astype(np.float32)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return rows[order], np.take_along_axis(scores, order, axis=1)


class _BreakableWorker(MatrixWorker):
    def __init__(self, folder: Path) -> None:
        super().__init__("cpu")
        self._folder = folder

    def warm(self) -> None:
        pass

    def free_memory(self) -> tuple[int, int]:
        return 0, 0

    def new_matrix(self, rows: int, dim: int) -> Any:
        return _NumpyMatrix(rows, dim)

    def memory(self, call: Message) -> Message:
        return Message({**super().memory(call).values, "keys": sorted(self._matrices.by_key)})

    def create(self, call: Message) -> Message:
        self._refuse("create", call)
        return super().create(call)

    def fill(self, call: Message) -> Message:
        self._refuse("fill", call)
        return super().fill(call)

    def search(self, call: Message) -> Message:
        if self._is("empty"):
            return Message({})
        if self._is("memory"):
            raise OutOfMemoryError("CUDA out of memory")
        if self._is("error"):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if self._is("hang"):
            threading.Event().wait()
        rows, scores = super().search(call).arrays
        if self._is("wrong"):
            scores = scores + np.float32(0.5)
        if self._is("nan"):
            scores = scores * np.float32(np.nan)
        return Message({}, [rows, scores])

    def _refuse(self, way: str, call: Message) -> None:
        if self._is(f"no memory to {way} {call.values['key']}"):
            raise OutOfMemoryError("CUDA out of memory")

    def _is(self, way: str) -> bool:
        return (self._folder / way).exists()


if __name__ == "__main__":
    serve_calls(_BreakableWorker(Path(sys.argv[1])).handlers())

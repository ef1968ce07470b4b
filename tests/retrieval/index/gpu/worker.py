"""A worker on the CPU that breaks as the files of a folder say: python -m … FOLDER.

wrong: scores are off. nan: scores are not numbers. memory: searches run out of memory. error: they
raise. hang: they never end. empty: the reply has no arrays. no memory to fill KEY, or no memory to
create KEY: as it says.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np

from nearline.workers.process import Message, serve_calls
from retrieval.index.gpu.worker import MatrixWorker


class OutOfMemoryError(Exception):
    pass


class _BreakableWorker(MatrixWorker):
    def __init__(self, folder: Path) -> None:
        super().__init__("cpu")
        self._folder = folder

    def memory(self, call: Message) -> Message:
        return Message({**super().memory(call).values, "keys": sorted(self._matrices)})

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

"""A worker that copies FAISS indexes to no GPU: python -m … NUMBER. 1 has no memory for them."""

from __future__ import annotations

import sys
from typing import Any

import faiss

from nearline.workers.process import Handler, Message, serve_calls
from retrieval.index.gpu.faiss_worker import FaissWorker


class _CpuWorker(FaissWorker):
    def handlers(self) -> dict[str, Handler]:
        return {**super().handlers(), "memory": lambda call: Message({"free": 0, "total": 0})}

    def check(self) -> None:
        pass

    def copy(self, index: Any) -> Any:
        if self._number:
            raise RuntimeError("Error in cudaMalloc:\nout of memory")
        return faiss.clone_index(index)


if __name__ == "__main__":
    serve_calls(_CpuWorker(int(sys.argv[1])).handlers())

"""Runs a model on one GPU for the service that started it: `python -m embedding.gpu.worker`.

`load` loads the model that its values describe on the torch device `device`; `run` runs a batch:
token ids and mask of texts (n, longest), or packed pairs, to rows (n, width) float32.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedding.backend import PaddedBackend, TokenBatch, unpad
from embedding.memory_limit import MemoryLimitedEngine
from embedding.model import EmbeddingModel, PoolingMode
from embedding.pairs import unpack_pairs
from nearline.workers.process import Message, serve_calls

_Run = Callable[[Sequence[NDArray[Any]]], NDArray[np.float32]]


class GpuWorker:
    """The calls of a worker. One model is loaded, before the first batch."""

    def __init__(self) -> None:
        self._run: _Run | None = None

    def load(self, call: Message) -> Message:
        """Loads a model: an encoder, or a cross-encoder if the values have `probabilities`."""
        values = call.values
        self._run = _load_pairs(values) if "probabilities" in values else _load_encoder(values)
        return Message({})

    def run(self, call: Message) -> Message:
        """Runs a batch."""
        assert self._run is not None
        return Message({}, [self._run(call.arrays)])


def _load_encoder(values: Any) -> _Run:
    from embedding.torch_backend import TorchBackend

    facts = values["model"]
    model = EmbeddingModel(
        **{**facts, "folder": Path(facts["folder"]), "pooling": PoolingMode(facts["pooling"])}
    )
    backend = TorchBackend(model, values["precision"], device=values["device"])
    engine = MemoryLimitedEngine(PaddedBackend(backend, model.pad_id))
    # The threads of the channels are told apart by the backend, not by a slot.
    return lambda arrays: engine.run(unpad(TokenBatch(*arrays)), 0)


def _load_pairs(values: Any) -> _Run:
    from embedding.cross_encoder import CrossEncoderEngine

    engine = MemoryLimitedEngine(
        CrossEncoderEngine(
            Path(values["folder"]),
            probabilities=values["probabilities"],
            device=values["device"],
        )
    )
    lock = threading.Lock()

    def run(arrays: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        # The cross-encoder's own tokenizer is for one thread.
        with lock:
            return engine.run(unpack_pairs(arrays), 0)

    return run


if __name__ == "__main__":
    worker = GpuWorker()
    serve_calls({"load": worker.load, "run": worker.run})

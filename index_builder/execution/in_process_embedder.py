"""The embedding model in the process of a worker: the embedding service without gRPC."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from embedding.service import EmbeddingService
from embedding.settings import EmbeddingSettings, cache_folder
from nearline.contract import Embedder


@dataclass(frozen=True, slots=True)
class InProcessModel:
    """Loads the model in a worker.

    settings: Settings of the embedding service; only its model is loaded.
    """

    settings: EmbeddingSettings

    def __post_init__(self) -> None:
        # A worker runs in a different working directory.
        if Path(self.settings.model).is_dir():
            found = self.settings.model_copy(update={"model": os.path.abspath(self.settings.model)})
            object.__setattr__(self, "settings", found)
        if self.settings.store and "://" not in self.settings.store:
            found = self.settings.model_copy(update={"store": os.path.abspath(self.settings.store)})
            object.__setattr__(self, "settings", found)

    @contextlib.asynccontextmanager
    async def __call__(self, cpus: int, gpu: bool) -> AsyncIterator[Embedder]:
        """Loads the model with the resources of a worker.

        Args:
            cpus: Number of cores. gpu: Whether to run the model on a GPU.
        Raises: As `EmbeddingService.open`.
        """
        # With all cores, 0 uses the thread count measured by the machine's embedding service.
        threads = cpus if cpus < (os.cpu_count() or cpus) else 0
        settings = self.settings.model_copy(
            update={
                "reranker": "",
                "entailment": "",
                "threads": self.settings.threads or threads,
                # CUDA shows each worker only the GPU that Ray gave it.
                "device": "cuda:0" if gpu else self.settings.device,
            }
        )
        service = await EmbeddingService.open(settings, cache_folder(settings, os.environ))
        try:
            yield service
        finally:
            await service.close()

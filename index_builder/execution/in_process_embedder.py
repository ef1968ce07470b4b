"""The embedding model in a worker's own process: what the embedding service is, without gRPC."""

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
    """How a worker loads the model.

    settings: Those of the embedding service; what it has beside the model is not loaded.
    """

    settings: EmbeddingSettings

    def __post_init__(self) -> None:
        # A worker stands in another folder.
        if Path(self.settings.model).is_dir():
            found = self.settings.model_copy(update={"model": os.path.abspath(self.settings.model)})
            object.__setattr__(self, "settings", found)
        if self.settings.store and "://" not in self.settings.store:
            found = self.settings.model_copy(update={"store": os.path.abspath(self.settings.store)})
            object.__setattr__(self, "settings", found)

    @contextlib.asynccontextmanager
    async def __call__(self, cpus: int, gpu: bool) -> AsyncIterator[Embedder]:
        """Loads the model, with what a worker was given of its machine.

        Args:
            cpus: Cores. gpu: Whether it has a GPU, which then runs the model.
        Raises: as `EmbeddingService.open`.
        """
        # All cores are what the embedding service of the machine has measured already.
        threads = cpus if cpus < (os.cpu_count() or cpus) else 0
        settings = self.settings.model_copy(
            update={
                "reranker": "",
                "entailment": "",
                "threads": self.settings.threads or threads,
                # CUDA shows a worker its own GPU alone.
                "device": "cuda" if gpu else self.settings.device,
            }
        )
        service = await EmbeddingService.open(settings, cache_folder(settings, os.environ))
        try:
            yield service
        finally:
            await service.close()

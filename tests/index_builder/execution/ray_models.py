"""Embedders for workers of a Ray cluster: with known vectors, or stalling until killed."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nearline.contract import Embedder, Embeddings, Lane, TextRole
from tests.index_builder.embedders import HashEmbedder


@dataclass(frozen=True)
class HashModel:
    """Opens a `HashEmbedder` in a worker.

    folder: Gets a line per text embedded in `embedded.txt`, and one per opening in `opened.txt`.
    fingerprint, poison: As `HashEmbedder`.
    stall_after: Texts after which the first worker says its process id into the pipe `stalled`, and
        stands still for good; its successors do not. 0: none does.
    """

    folder: Path
    fingerprint: str = "hash"
    poison: str = ""
    stall_after: int = 0

    @contextlib.asynccontextmanager
    async def __call__(self, cpus: int, gpu: bool) -> AsyncIterator[Embedder]:
        """Opens the embedder."""
        with (self.folder / "opened.txt").open("a") as stream:
            stream.write(f"{cpus} {gpu}\n")
        yield _Stalling(self)


class _Stalling(HashEmbedder):
    def __init__(self, model: HashModel) -> None:
        log = model.folder / "embedded.txt"
        super().__init__(fingerprint=model.fingerprint, log=log, poison=model.poison)
        self._model = model

    async def embed(
        self,
        texts: Sequence[str],
        role: TextRole = TextRole.DOCUMENT,
        *,
        dimensions: int | None = None,
        expected_fingerprint: str = "",
        lane: Lane = Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> Embeddings:
        """Embeds or stalls."""
        stall_after, folder = self._model.stall_after, self._model.folder
        if stall_after and len(self.texts) >= stall_after:
            with contextlib.suppress(FileExistsError):
                (folder / "stood").touch(exist_ok=False)
                with (folder / "stalled").open("w") as pipe:
                    pipe.write(str(os.getpid()))
                threading.Event().wait()
        return await super().embed(texts, role, lane=lane)

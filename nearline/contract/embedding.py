"""What the embedding service and its client have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nearline.contract.terms import Lane, TextRole


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """Vectors of n texts.

    vectors: (n, d) float32, unit length. tokens: (n,) int64, before truncation.
    truncated: (n,) bool.
    tokenize_s, queue_s, inference_s: seconds spent in each stage.
    """

    vectors: NDArray[np.float32]
    fingerprint: str
    tokens: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    tokenize_s: float = 0.0
    queue_s: float = 0.0
    inference_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderInfo:
    """Card of an embedder; see GetInfoResponse for the meaning of each field."""

    model: str
    fingerprint: str
    dim: int
    max_tokens: int
    max_texts: int
    max_characters: int
    max_queued_tokens: int
    backend: str
    min_cosine: float
    tokens_per_second: float
    query_prompt: str = ""
    document_prompt: str = ""


class Embedder(Protocol):
    """Turns texts into vectors."""

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
        """Embeds a batch of texts, all or nothing.

        Raises: InvalidRequest, Overloaded, NotReady, SnapshotMismatch (fingerprint),
            DeadlineExceeded.
        """
        ...

    async def info(self) -> EmbedderInfo:
        """Gives the embedder's card."""
        ...

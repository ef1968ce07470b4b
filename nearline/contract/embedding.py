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
    reranker: str = ""
    reranker_fingerprint: str = ""
    entailment: str = ""
    entailment_fingerprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntailmentScores:
    """What an entailment model thinks of n pairs of texts.

    entailment, contradiction: (n,) probabilities, each 0..1; the rest to 1 is neither of the two.
    fingerprint: Of the model.
    """

    entailment: Sequence[float]
    contradiction: Sequence[float]
    fingerprint: str


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
        """Returns the embedder's card."""
        ...


class Reranker(Protocol):
    """Scores texts against a query, both read together by a cross-encoder."""

    async def rerank(
        self,
        query: str,
        texts: Sequence[str],
        *,
        lane: Lane = Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> Sequence[float]:
        """Scores texts, all or nothing.

        Args:
            query: Not empty.
            texts: n texts, none empty, 1 <= n <= max_texts of the embedder's card. What is longer
                than the model reads counts by its beginning.
            lane: Queue to wait in.
            timeout_s: Seconds the scores may take.
        Returns: (n,) finite scores, in order of the texts; larger is better. The scale is the
            model's own: often 0..1, not always.
        Raises: InvalidRequest, Overloaded, NotReady, DeadlineExceeded; Unsupported: no reranker.
        """
        ...


class Entailment(Protocol):
    """Tells whether a text says what another one claims (natural language inference)."""

    async def entail(
        self,
        premises: Sequence[str],
        hypotheses: Sequence[str],
        *,
        lane: Lane = Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> EntailmentScores:
        """Judges pairs: does premises[i] say hypotheses[i]? All or nothing.

        Args:
            premises: n texts, none empty, 1 <= n <= max_texts of the embedder's card.
            hypotheses: n texts, none empty.
            lane: Queue to wait in.
            timeout_s: Seconds the answer may take.
        Returns: (n,) probabilities of either.
        Raises: InvalidRequest, Overloaded, NotReady, DeadlineExceeded; Unsupported: no model.
        """
        ...

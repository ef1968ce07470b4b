"""Records and protocols of the embedding service and its client."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nearline.contract.records import ServedBy
from nearline.contract.terms import Lane, TextRole

# Name of the reranker that is shipped: it judges whether a text answers a question. The first line
# of a text is its title, the rest a sentence; scores are logits.
ANSWER_JUDGE = "answer-judge-2"
# Name of the entailment model that is shipped: it judges whether a source supports or contradicts a
# statement. The first of several lines of a premise is the title of its document.
ENTAILMENT_JUDGE = "entailment-judge"
# Rung of an answer for which the CPU stood in for a GPU: it took longer, and is as good.
CPU_RUNG = "cpu"
# Rung of an answer whose texts were searched by their words alone: no embedder answered.
LEXICAL_RUNG = "lexical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """Vectors of n texts.

    vectors: (n, d) float32, unit length. tokens: (n,) int64, before truncation.
    truncated: (n,) bool.
    tokenize_s, queue_s, inference_s: seconds spent in each stage.
    served_by: A fallback of rung "cpu" if the CPU stood in for a GPU.
    """

    vectors: NDArray[np.float32]
    fingerprint: str
    tokens: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    tokenize_s: float = 0.0
    queue_s: float = 0.0
    inference_s: float = 0.0
    served_by: ServedBy = field(default_factory=ServedBy)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderInfo:
    """The card of an embedder; see GetInfoResponse in embedding.proto for each field."""

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
    """Scores of n pairs of texts by an entailment model.

    entailment, contradiction: (n,) probabilities in 0..1; the remainder to 1 is neutral.
    fingerprint: Fingerprint of the model. served_by: See `Embeddings`.
    """

    entailment: Sequence[float]
    contradiction: Sequence[float]
    fingerprint: str
    served_by: ServedBy = field(default_factory=ServedBy)


class RerankScores(list[float]):
    """Scores of a reranker, with their source.

    served_by: See `Embeddings`. fingerprint: Fingerprint of the reranker.
    """

    def __init__(self, scores: Iterable[float], served_by: ServedBy, fingerprint: str = "") -> None:
        super().__init__(scores)
        self.served_by = served_by
        self.fingerprint = fingerprint


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


@runtime_checkable
class Reranker(Protocol):
    """Scores texts against a query with a cross-encoder."""

    async def rerank(
        self,
        query: str,
        texts: Sequence[str],
        *,
        snapshot: str = "",
        lane: Lane = Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> Sequence[float]:
        """Scores texts, all or nothing.

        Args:
            query: Not empty.
            texts: n texts, none empty, 1 <= n <= max_texts of the embedder's card; truncated to
                the model's input length.
            snapshot: COLLECTION/SNAPSHOT_ID whose own reranker is used; empty: the service's.
            lane: Queue to wait in.
            timeout_s: Time limit in seconds.
        Returns: (n,) finite scores, in the order of the texts; larger is better. The scale depends
            on the model; often 0..1. `RerankScores` also name their source.
        Raises: InvalidRequest, Overloaded, NotReady, DeadlineExceeded; Unsupported: no reranker.
        """
        ...


class Entailment(Protocol):
    """Judges whether a text supports a claim (natural language inference)."""

    async def entail(
        self,
        premises: Sequence[str],
        hypotheses: Sequence[str],
        *,
        lane: Lane = Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> EntailmentScores:
        """Judges whether premises[i] entails hypotheses[i] for each pair, all or nothing.

        Args:
            premises: n texts, none empty, 1 <= n <= max_texts of the embedder's card.
            hypotheses: n texts, none empty.
            lane: Queue to wait in.
            timeout_s: Time limit in seconds.
        Returns: (n,) probabilities of entailment and of contradiction.
        Raises: InvalidRequest, Overloaded, NotReady, DeadlineExceeded; Unsupported: no model.
        """
        ...

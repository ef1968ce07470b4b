"""The records and protocols that services and clients share, free of gRPC and protobuf.

A domain object and the client that stands for it over the wire satisfy the same protocol, so
embedded and distributed use differ only in which of the two is held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

DEFAULT_COLLECTION = "default"
MAX_K = 10_000
MAX_BATCH = 1_024
MAX_EXAMPLES = 256

Scalar: TypeAlias = str | int | float | bool | datetime | None
AttributeValue: TypeAlias = Scalar | Sequence[Scalar]
Attributes: TypeAlias = Mapping[str, AttributeValue]


class TextRole(Enum):
    """What a text is for."""

    QUERY = "query"
    DOCUMENT = "document"


class Lane(Enum):
    """Which queue of the embedding service a request waits in."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


class SearchMode(Enum):
    """How candidates are found."""

    DENSE = "dense"
    LEXICAL = "lexical"
    HYBRID = "hybrid"


class HitLevel(Enum):
    """What one hit is: a document with its best chunk, or a chunk."""

    DOCUMENT = "document"
    CHUNK = "chunk"


class PayloadField(Enum):
    """A part of an item that a reply may carry."""

    TITLE = "title"
    TEXT = "text"
    ATTRIBUTES = "attributes"
    VECTOR = "vector"


class IgnoredReason(Enum):
    """Why an id of the request was left out."""

    NOT_FOUND = "not_found"
    SHARD_UNAVAILABLE = "shard_unavailable"


class Source(Enum):
    """Where an answer came from."""

    LIVE = "live"
    CACHE = "cache"
    FALLBACK = "fallback"


# --- embedding ------------------------------------------------------------------------------------


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


# --- retrieval ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One query: exactly one of text, vector (d,) float32 and item_ids is set."""

    text: str | None = None
    vector: NDArray[np.float32] | None = None
    item_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """Options of a search; see SearchOptions in retrieval.proto for ranges. None: the default."""

    k: int = 10
    mode: SearchMode | None = None
    level: HitLevel = HitLevel.DOCUMENT
    payload: frozenset[PayloadField] = frozenset()
    ef_search: int | None = None
    nprobe: int | None = None
    exact: bool = False
    require_full_coverage: bool = False
    snapshot_id: str = ""
    explain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """How a score came about; None where a leg did not see the item."""

    dense_score: float | None
    lexical_score: float | None
    shard: int


@dataclass(slots=True, kw_only=True)
class Hit:
    """One item found; start and end are code points of the stored text.

    Parts not asked for are None.
    """

    id: str
    score: float
    chunk: int = 0
    start: int = 0
    end: int = 0
    title: str | None = None
    text: str | None = None
    attributes: Attributes | None = None
    vector: NDArray[np.float32] | None = None
    explanation: Explanation | None = None


@dataclass(frozen=True, slots=True)
class IgnoredId:
    """An id of the request that was left out, and why."""

    id: str
    reason: IgnoredReason


@dataclass(frozen=True, slots=True, kw_only=True)
class HitList:
    """Hits of one query: score descending, then id ascending."""

    hits: Sequence[Hit]
    ignored_ids: Sequence[IgnoredId] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How much of the collection an answer saw."""

    shards_answered: int
    shards_total: int
    missing_shards: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedBy:
    """Where an answer came from; rung and reason are empty for a full live answer."""

    source: Source = Source.LIVE
    rung: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyInfo:
    """What a reply reports about itself; times in seconds, None where a stage did not run."""

    epoch: int
    snapshot_id: str
    fingerprint: str
    coverage: Coverage
    served_by: ServedBy = field(default_factory=ServedBy)
    watermark: bytes = b""
    list_id: str = ""
    embed_s: float | None = None
    search_s: float | None = None
    total_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchReply:
    """Answer to one or many searches: one list per query, in order."""

    results: Sequence[HitList]
    info: ReplyInfo

    @property
    def hits(self) -> Sequence[Hit]:
        """Hits of the first query; the only ones after a single search."""
        return self.results[0].hits


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One item as stored. Parts not asked for are empty, or None for the vector."""

    id: str
    title: str = ""
    text: str = ""
    attributes: Attributes = field(default_factory=dict)
    vector: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsReply:
    """Items found, in the order asked, and the ids left out."""

    items: Sequence[Item]
    ignored_ids: Sequence[IgnoredId]
    info: ReplyInfo


class Retriever(Protocol):
    """Finds items; satisfied by the service object and by the client alike."""

    async def search(
        self,
        query: Query,
        options: SearchOptions = ...,
        *,
        collection: str = DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> SearchReply:
        """Finds the best items for one query.

        Raises: InvalidRequest, NotFound, NotReady, ShardsUnavailable, SnapshotMismatch,
            Unsupported, Overloaded, DeadlineExceeded.
        """
        ...

    async def search_batch(
        self,
        queries: Sequence[Query],
        options: SearchOptions = ...,
        *,
        collection: str = DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> SearchReply:
        """Finds the best items for 1..1024 queries, all from one snapshot."""
        ...

    async def get_items(
        self,
        ids: Sequence[str],
        payload: frozenset[PayloadField] = ...,
        *,
        collection: str = DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> ItemsReply:
        """Reads items by id; ids that do not exist are in ignored_ids."""
        ...

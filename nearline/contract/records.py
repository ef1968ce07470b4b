"""Queries, options and replies of the retrieval service."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nearline.contract.boosts import Boost
from nearline.contract.highlights import Highlighting, Highlights, TextSpan
from nearline.contract.tables import TableReply
from nearline.contract.terms import (
    CLIENT_PAYLOAD,
    Arm,
    Attributes,
    Converted,
    FilterLike,
    HitLevel,
    Id,
    IgnoredReason,
    PayloadField,
    PayloadLike,
    PlanStrategy,
    Scalar,
    SearchMode,
    Source,
    VectorLike,
)
from nearline.filters import Filter


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One query: exactly one of text, vector (d,) float32 and item_ids is set."""

    text: str | None = None
    vector: Converted[NDArray[np.float32] | None, VectorLike | None] = None  # type: ignore[assignment]
    item_ids: Converted[tuple[str, ...], Iterable[Id]] = ()  # type: ignore[assignment]


# A text, or numbers, stand for a query of it.
QueryLike: TypeAlias = Query | str | VectorLike


@dataclass(frozen=True, slots=True)
class Grouping:
    """Groups hits with equal values of an attribute: k groups of 1..size hits each."""

    field: str
    size: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """Options of a search; see SearchOptions in retrieval.proto for ranges. None is the default.

    payload: Parts of items to return. Unless set, clients ask for titles and texts. personal: How
    much the taste of a user or a session counts, 0..1. unrecorded: Keeps the search out of what is
    recorded.
    """

    k: int = 10
    mode: Converted[SearchMode | None, SearchMode | str | None] = None  # type: ignore[assignment]
    level: Converted[HitLevel, HitLevel | str] = HitLevel.DOCUMENT  # type: ignore[assignment]
    payload: Converted[frozenset[PayloadField], PayloadLike] = CLIENT_PAYLOAD  # type: ignore[assignment]
    ef_search: int | None = None
    nprobe: int | None = None
    exact: bool = False
    require_full_coverage: bool = False
    snapshot_id: str = ""
    explain: bool = False
    filter: Converted[Filter | None, FilterLike | None] = None  # type: ignore[assignment]
    min_score: float | None = None
    grouping: Converted[Grouping | None, Grouping | str | None] = None  # type: ignore[assignment]
    diversity: float = 0.0
    dense_weight: float | None = None
    min_watermark: bytes = b""
    unit: str = ""
    boosts: Converted[tuple[Boost, ...], Iterable[Boost | Mapping[str, Any]]] = ()  # type: ignore[assignment]
    highlight: Converted[Highlighting | None, Highlighting | Mapping[str, int] | None] = None  # type: ignore[assignment]
    plain_text: bool = False
    min_should_match: float | None = None
    rerank: int | None = None
    user_id: Converted[str, Id] = ""  # type: ignore[assignment]
    session_id: str = ""
    personal: float = 0.0
    unrecorded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Components of a score; None if a leg did not find the item. Ranks count from 1.

    title_level: How well the title matches the query: from 3 if it is the query, from 2 if it has
    the same words, 1 if it has all words of the query, 0 otherwise; half of one less for misspelt
    words. boosts: Value of each boost of the request, 0..1.
    """

    dense_score: float | None
    lexical_score: float | None
    shard: int
    dense_rank: int | None = None
    lexical_rank: int | None = None
    title_level: float = 0.0
    boosts: Sequence[float] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterPlan:
    """How a shard executed a filter, and why.

    matches, chunks: Numbers of matching chunks and of all chunks; with strategy BACKEND, matches is
    unknown and 0. ef_search: 0 if no graph was searched.
    """

    shard: int
    strategy: PlanStrategy
    matches: int
    chunks: int
    ef_search: int
    reason: str


@dataclass(slots=True, kw_only=True)
class Hit:
    """One item found; start and end are code points of the stored text.

    Parts that were not requested are None, or empty.

    section: Headings above the chunk, then the list items in which it begins; see
        `nearline.items.structure`.
    reasons: Why a personal search placed it higher; see Recommendation in retrieval.proto.
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
    group: Scalar = None
    highlights: Highlights | None = None
    section: Sequence[str] = ()
    reasons: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class IgnoredId:
    """An id of the request that was ignored, and why."""

    id: str
    reason: IgnoredReason


@dataclass(frozen=True, slots=True)
class Term:
    """A query term of the lexical leg: a stem, the number of chunks with it, and its idf."""

    word: str
    chunks: int
    idf: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HitList:
    """Hits of one query: score descending, then id ascending; see HitList in retrieval.proto.

    plans: One per shard, if a filter was explained. terms: Query terms, if a lexical search was
    explained. language: Language of the stemmer.
    """

    hits: Sequence[Hit]
    ignored_ids: Sequence[IgnoredId] = ()
    plans: Sequence[FilterPlan] = ()
    terms: Sequence[Term] = ()
    language: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """The shards that contributed to an answer."""

    shards_answered: int
    shards_total: int
    missing_shards: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedBy:
    """The source of an answer; rung and reason are empty for a full live answer."""

    source: Source = Source.LIVE
    rung: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchCost:
    """The cost of an exact search, for all its queries in all shards.

    comparisons: Comparisons of a query with a vector. compute_s: Seconds of the threads that
    compared; where a GPU did, the seconds until it answered. gpu: Whether GPUs compared the vectors
    of every shard's snapshot; the CPU compares live changes.
    """

    comparisons: int
    compute_s: float
    gpu: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyInfo:
    """Metadata of a reply; times in seconds, None if a stage did not run.

    arm: The snapshot that answered during a canary trial; None without a trial. cost: None
    unless vectors were searched exactly.
    """

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
    arm: Arm | None = None
    cost: SearchCost | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchReply(TableReply):
    """Reply to one or more queries: one list per query, in order; a row per hit as a table.

    next_page_token: For the hits after those of a single query; empty if there are none.
    """

    results: Sequence[HitList]
    info: ReplyInfo
    next_page_token: str = ""

    @property
    def hits(self) -> Sequence[Hit]:
        """Hits of the first query."""
        return self.results[0].hits

    def _rows(self) -> Iterator[tuple[dict[str, Any], Attributes]]:
        for number, found in enumerate(self.results):
            query = {"query": number} if len(self.results) > 1 else {}
            for hit in found.hits:
                yield query | hit_columns(hit), hit.attributes or {}

    def _caption(self) -> str:
        return source_line(self.info)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One item as stored. Parts that were not requested are empty; the vector is None.

    expires: Aware time after which the item is no longer served; None means never.
    version: Number of its last live change; 0 if unchanged since its import.
    section: See Hit; where a chunk was read.
    """

    id: str
    title: str = ""
    text: str = ""
    attributes: Attributes = field(default_factory=dict)
    vector: Converted[NDArray[np.float32] | None, VectorLike | None] = None  # type: ignore[assignment]
    expires: datetime | None = None
    version: int = 0
    section: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsReply(TableReply):
    """Items in the order of the request, and the ignored ids; a row per item as a table."""

    items: Sequence[Item]
    ignored_ids: Sequence[IgnoredId]
    info: ReplyInfo

    def _rows(self) -> Iterator[tuple[dict[str, Any], Attributes]]:
        return map(_item_columns, self.items)

    def _caption(self) -> str:
        missing = len(self.ignored_ids)
        return source_line(self.info) + (f" · {missing:,} not found" if missing else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsPage(TableReply):
    """Items in id order, and the token of the next page; empty at the end."""

    items: Sequence[Item]
    next_page_token: str
    info: ReplyInfo

    def _rows(self) -> Iterator[tuple[dict[str, Any], Attributes]]:
        return map(_item_columns, self.items)

    def _caption(self) -> str:
        return source_line(self.info)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facet:
    """An attribute whose most frequent values are counted. limit: 1..1000."""

    field: str
    limit: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class FacetCounts:
    """Values of one attribute with their counts, most frequent first, then by value.

    distinct: Number of distinct values. missing: Number of items without the attribute.
    """

    field: str
    counts: Sequence[tuple[Scalar, int]]
    distinct: int
    missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CountReply:
    """The number of items that match a filter, and the requested facets, in order."""

    count: int
    facets: Sequence[FacetCounts]
    info: ReplyInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A title that completes a text, and an item with it.

    score: 2 if the title is the text, 1 if it begins with it, else 0, plus the popularity of the
    item, 0..1. spans: First and past-the-end code points of the words of the title that were typed.
    """

    title: str
    id: str
    score: float
    spans: Sequence[TextSpan]


@dataclass(frozen=True, slots=True, kw_only=True)
class PopularQuery:
    """A query that begins with a text. count: How often it was recorded."""

    text: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SuggestReply:
    """Titles that complete a text, best first.

    queries: What others often searched for that begins with the text, the most frequent first;
    empty unless the service is told to show it.
    correction: The text with words of the collection in place of unknown ones; empty if there is
    nothing to correct.
    """

    suggestions: Sequence[Suggestion]
    correction: str
    info: ReplyInfo
    queries: Sequence[PopularQuery] = ()


def hit_columns(hit: Hit) -> dict[str, Any]:
    """Returns the columns of a hit in a table; parts that it does not have are left out."""
    columns = {"id": hit.id, "score": hit.score, "title": hit.title, "text": hit.text}
    columns |= {"chunk": hit.chunk, "start": hit.start, "end": hit.end}
    if hit.highlights is not None and hit.highlights.passage is not None:
        columns["passage"] = hit.highlights.passage.text
    columns |= {"group": hit.group, "vector": hit.vector}
    return {name: value for name, value in columns.items() if value is not None}


def _item_columns(item: Item) -> tuple[dict[str, Any], Attributes]:
    columns: dict[str, Any] = {"id": item.id, "title": item.title, "text": item.text}
    extra = {"expires": item.expires, "version": item.version or None, "vector": item.vector}
    columns |= {name: value for name, value in extra.items() if value is not None}
    return columns, item.attributes


def source_line(info: ReplyInfo) -> str:
    """Returns which state of the collection a reply is from, for people."""
    coverage = info.coverage
    shards = f"shards {coverage.shards_answered}/{coverage.shards_total}"
    return f"epoch {info.epoch} · snapshot {info.snapshot_id} · {shards}"

"""The protocol of a shard, and the records that travel between shards and the router."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Awaitable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from nearline.contract import (
    Attributes,
    Boost,
    Filter,
    Grouping,
    Highlights,
    HitLevel,
    Item,
    PayloadField,
    PlanStrategy,
    Scalar,
    SearchCost,
    SearchMode,
    Suggestion,
)
from retrieval.protocols.candidates import (
    CandidatesRequest,
    HistoryRequest,
    ShardCandidates,
    StoredHistory,
    UseCandidates,
)
from retrieval.protocols.watermark import AppliedState, Watermark

# What each level of a title that matches the query adds to a score: in hybrid search as it is, in
# lexical search for each word of the query. No word adds as much, since ln(2 N + 2) < 32 for 10^13
# chunks, so a better title outranks any sum of words. Of items with one title, a tenth more of the
# popularity outranks most differences of the legs of a hybrid search.
TITLE_SCORE = 32.0


class ShardOptions(NamedTuple):
    """Options of a search in one shard; queries with equal options may share a batch.

    k: Number of hits from this shard (hybrid: candidates per leg; grouped: groups). It may exceed
    the public limit by the number of hits that the router drops afterwards. boosts: The router
    changes the scores by their values, and puts the hits of groups together; origins are set.
    """

    k: int
    mode: SearchMode = SearchMode.DENSE
    level: HitLevel = HitLevel.DOCUMENT
    payload: frozenset[PayloadField] = frozenset()
    ef_search: int | None = None
    nprobe: int | None = None
    exact: bool = False
    filter: Filter | None = None
    grouping: Grouping | None = None
    explain: bool = False
    min_watermark: Watermark | None = None
    boosts: tuple[Boost, ...] = ()


@dataclass(frozen=True, slots=True)
class ShardQueries:
    """Queries of one call: vectors (n, d) float32 for the dense leg, n texts for the lexical one.

    The part that the mode does not need is empty: vectors of shape (0, d), or no texts.
    """

    vectors: NDArray[np.float32]
    texts: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """The number of queries."""
        return len(self.texts) or len(self.vectors)

    def part(self, start: int, stop: int) -> ShardQueries:
        """Returns queries start..stop-1; empty parts stay empty."""
        return ShardQueries(self.vectors[start:stop], self.texts[start:stop])

    @classmethod
    def concatenate(cls, parts: Sequence[ShardQueries]) -> ShardQueries:
        """Concatenates queries of one mode, in order."""
        if len(parts) == 1:
            return parts[0]
        texts = tuple(text for part in parts for text in part.texts)
        return cls(np.concatenate([part.vectors for part in parts]), texts)


class HitPayload(NamedTuple):
    """Payload of one hit; fields that were not requested are None, or empty."""

    title: str | None
    text: str | None
    attributes: Attributes | None
    vector: NDArray[np.float32] | None
    section: Sequence[str] = ()


class LexicalColumns(NamedTuple):
    """The lexical leg of hybrid candidates, one entry per hit: BM25 score and best chunk.

    titles: How well the title matches the query: from 3 if it is the query, 1 if it has all of its
    words, 0 otherwise; see Explanation. title_score: What each level adds to the score by which the
    shard selected its candidates: TITLE_SCORE for each word of the query.
    """

    scores: Sequence[float]
    chunks: Sequence[int]
    starts: Sequence[int]
    ends: Sequence[int]
    titles: Sequence[float]
    title_score: float = TITLE_SCORE


class ShardFilterPlan(NamedTuple):
    """How a filter was executed; see FilterPlan in retrieval.proto."""

    strategy: PlanStrategy
    matches: int
    chunks: int
    ef_search: int
    reason: str


@dataclass(slots=True)
class ShardHits:
    """Hits of one query in one shard, as parallel columns.

    Ordered by (score descending, document id ascending, chunk ascending). Grouped hits are ordered
    by the best hit of each group, with all hits of a group together. `payloads` is empty if none
    was requested, `groups` if hits are not grouped, and `plan` is None without a filter. `terms`
    holds the words of the query with the number of chunks in the whole collection that contain
    each; it is empty unless an explanation was requested. `boosts` has the values of the boosts for
    each hit, as float32, and `title_scores` what its title adds to the score of a lexical search;
    both are empty without boosts. `cost` is that of this query, None
    unless the search was exact. `fallback` says why
    the CPU answered in place of a GPU; it is empty if it did not.

    Hybrid: candidates of both legs in no particular order, with the scores and chunks of the dense
    leg in the columns, and those of the lexical leg in `lexical`. Both scores are exact, whichever
    leg found the candidate.
    """

    ids: Sequence[str]
    scores: Sequence[float]
    chunks: Sequence[int]
    starts: Sequence[int]
    ends: Sequence[int]
    payloads: Sequence[HitPayload] = ()
    lexical: LexicalColumns | None = None
    groups: Sequence[Scalar] = ()
    plan: ShardFilterPlan | None = None
    terms: Sequence[tuple[str, int]] = ()
    applied: AppliedState | None = None
    boosts: Sequence[Sequence[float]] = ()
    title_scores: Sequence[float] = ()
    cost: SearchCost | None = None
    fallback: str = ""


def add_costs(one: SearchCost, other: SearchCost) -> SearchCost:
    """Returns the cost of two searches."""
    return SearchCost(
        comparisons=one.comparisons + other.comparisons,
        compute_s=one.compute_s + other.compute_s,
        gpu=one.gpu and other.gpu,
    )


class HighlightRequest(NamedTuple):
    """Queries to highlight in items that are read by chunk.

    texts: Query texts; empty for a query without words. queries: For each item, places of texts.
    passage_chars: Most code points of a passage. chunks: Chunks of the collection, for the weights
    of words.
    """

    texts: Sequence[str]
    queries: Sequence[Sequence[int]]
    passage_chars: int
    chunks: int


class ItemsRequest(NamedTuple):
    """Items to read by id.

    payload: Fields to read. The vector is that of the document: the mean of its chunks' vectors, at
    unit length if the metric is cosine. chunks: One number per id; text and vector are then those
    of the chunk. filter: Items that do not match are left out. min_watermark: See `Shard`.
    highlight: Queries whose words to find in the chunks. Optional.
    """

    ids: Sequence[str]
    payload: frozenset[PayloadField]
    chunks: Sequence[int] = ()
    filter: Filter | None = None
    min_watermark: Watermark | None = None
    highlight: HighlightRequest | None = None


class ScanRequest(NamedTuple):
    """The first `limit` items that match and follow `after_id`, in id order."""

    after_id: str
    limit: int
    filter: Filter | None
    payload: frozenset[PayloadField]
    min_watermark: Watermark | None = None


class CountRequest(NamedTuple):
    """Items to count, and the attributes whose values are counted among them."""

    filter: Filter | None
    fields: Sequence[str]
    min_watermark: Watermark | None = None


class ShardItems(NamedTuple):
    """Items that a shard read; applied is None if no change log is followed.

    highlights: For each item, one record per query to highlight; passages are in code points of the
    chunk. Empty if none were requested.
    """

    items: Sequence[Item]
    applied: AppliedState | None = None
    highlights: Sequence[Sequence[Highlights]] = ()


class SuggestRequest(NamedTuple):
    """The beginning of a title to complete, among items that match; see `Shard`."""

    text: str
    limit: int
    filter: Filter | None = None
    min_watermark: Watermark | None = None


class ShardSuggestions(NamedTuple):
    """Suggestions of a shard, best first.

    correction: The text with known words in place of unknown ones; empty if none is.
    """

    suggestions: Sequence[Suggestion]
    correction: str
    applied: AppliedState | None = None


class FieldCounts(NamedTuple):
    """Counts of the values of an attribute among the items that match.

    missing: Number of items that match and lack the attribute.
    """

    counts: Mapping[Scalar, int]
    missing: int


@dataclass(frozen=True, slots=True)
class ShardCounts:
    """The number of items that match, and the counts of each requested field."""

    count: int
    fields: Sequence[FieldCounts]
    applied: AppliedState | None = None


class Shard(Protocol):
    """One shard of the snapshots of a collection: in this process, behind gRPC, or in Milvus.

    Every method raises SnapshotGone if the shard does not hold the snapshot, and NotReady,
    DeadlineExceeded or Overloaded if it cannot answer now. With a watermark, methods wait until
    live changes have been applied that far; they raise NotReady if that takes too long,
    SnapshotMismatch if the watermark is of another log, and Unsupported if no log is followed.

    has_words: Whether the shard supports lexical search, for snapshots with a lexical index.
    server: Shards with equal servers find candidates in one call.
    """

    has_words: bool

    @property
    def server(self) -> Hashable:
        """Names the process, or the replicas, that hold the shard."""
        ...

    def search(
        self,
        snapshot_id: str,
        queries: ShardQueries,
        options: ShardOptions,
        deadline: float | None = None,
    ) -> Future[Sequence[ShardHits]]:
        """Starts a search and returns at once; cancelling the future frees its slot.

        Args:
            snapshot_id: Snapshot to search.
            queries: Vectors finite and in C order; unit length if the metric is cosine.
            options: Options of all queries.
            deadline: Loop time after which the result is useless; None if there is no limit.
        Returns: One record per query, in order.
        Raises (in the future): as above. InvalidRequest: an attribute does not exist. Unsupported:
            the snapshot or its index does not support the options.
        """
        ...

    def fetch(
        self, snapshot_id: str, request: ItemsRequest, deadline: float | None = None
    ) -> Awaitable[ShardItems]:
        """Reads items by id, in the order of the ids; those that do not exist are left out."""
        ...

    def scan(
        self, snapshot_id: str, request: ScanRequest, deadline: float | None = None
    ) -> Awaitable[ShardItems]:
        """Reads items in id order."""
        ...

    def count(
        self, snapshot_id: str, request: CountRequest, deadline: float | None = None
    ) -> Awaitable[ShardCounts]:
        """Counts the items that match, and the values of attributes among them."""
        ...

    def suggest(
        self, snapshot_id: str, request: SuggestRequest, deadline: float | None = None
    ) -> Awaitable[ShardSuggestions]:
        """Completes a title. Raises Unsupported if the snapshot has no lexical index of titles."""
        ...

    def candidates(
        self,
        snapshot_id: str,
        request: CandidatesRequest,
        deadline: float | None = None,
        also: Sequence[int] = (),
        then: UseCandidates | None = None,
    ) -> Awaitable[ShardCandidates]:
        """Finds candidates of a list among the items of the shard.

        Args:
            also: Numbers of further shards of the same server.
            then: Called with the candidates in the thread that found them, if this process holds
                the shard; otherwise not called. Optional.
        Raises Unsupported if the snapshot was built without interactions.
        """
        ...

    def history(
        self, snapshot_id: str, request: HistoryRequest, deadline: float | None = None
    ) -> Awaitable[StoredHistory]:
        """Reads the interactions of a user of the shard. Raises as `candidates`."""
        ...

    async def ready(self, snapshot_id: str) -> int:
        """Returns the number of replicas that can answer from this snapshot now."""
        ...

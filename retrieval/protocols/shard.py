"""The seam between the router and what holds a part of a snapshot."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from nearline.contract import (
    Attributes,
    Filter,
    Grouping,
    HitLevel,
    Item,
    PayloadField,
    PlanStrategy,
    Scalar,
    SearchMode,
)
from retrieval.protocols.watermark import Watermark


class ShardOptions(NamedTuple):
    """Options of a search inside one shard; queries with equal ones may share a batch.

    k: What is asked of this shard: it may exceed the public limit by what the router leaves out
    afterwards. Hybrid: candidates per leg; grouped: groups.
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


class AppliedState(NamedTuple):
    """How far live changes are in an answer of a shard.

    watermark: In the partitions of the shard; 0 in the others.
    stale: Why it may be behind the log although it answers; empty: it is not.
    """

    watermark: Watermark
    stale: str = ""


@dataclass(frozen=True, slots=True)
class ShardQueries:
    """Queries of one call: vectors (n, d) float32 for the dense leg, n texts for the lexical one.

    The half that the mode does not need is empty: vectors of shape (0, d), or no texts.
    """

    vectors: NDArray[np.float32]
    texts: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Number of queries."""
        return len(self.texts) or len(self.vectors)

    def part(self, start: int, stop: int) -> ShardQueries:
        """Returns queries start..stop-1; empty halves stay empty."""
        return ShardQueries(self.vectors[start:stop], self.texts[start:stop])

    @classmethod
    def joined(cls, parts: Sequence[ShardQueries]) -> ShardQueries:
        """Puts queries of one mode together, in order."""
        if len(parts) == 1:
            return parts[0]
        texts = tuple(text for part in parts for text in part.texts)
        return cls(np.concatenate([part.vectors for part in parts]), texts)


class HitPayload(NamedTuple):
    """Parts of one hit; those not asked for are None."""

    title: str | None
    text: str | None
    attributes: Attributes | None
    vector: NDArray[np.float32] | None


class LexicalColumns(NamedTuple):
    """The lexical leg of hybrid candidates, an entry per hit: true BM25, and the chunk it is of."""

    scores: Sequence[float]
    chunks: Sequence[int]
    starts: Sequence[int]
    ends: Sequence[int]


class ShardFilterPlan(NamedTuple):
    """How a filter was carried out; see FilterPlan in retrieval.proto."""

    strategy: PlanStrategy
    matches: int
    chunks: int
    ef_search: int
    reason: str


@dataclass(slots=True)
class ShardHits:
    """Hits of one query in one shard, columns side by side.

    Ordered by (score descending, document id ascending, chunk ascending); grouped: the groups by
    their best hits, all hits of a group together. payloads is empty where none was asked for,
    groups where hits are not grouped; plan is None without a filter. terms: words of the query with
    the number of chunks of the whole collection that have each, where that was to be explained.

    Hybrid: candidates of both legs in no particular order, scores and chunks of the dense leg, and
    `lexical` beside them. Both scores are true, whichever leg found the candidate.
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


class ShardItems(NamedTuple):
    """Items read; applied: None where no change log is followed."""

    items: Sequence[Item]
    applied: AppliedState | None = None


class FieldCounts(NamedTuple):
    """How often each value of an attribute occurs among the items that match.

    missing: Items that match and have none.
    """

    counts: Mapping[Scalar, int]
    missing: int


@dataclass(frozen=True, slots=True)
class ShardCounts:
    """Items that match, and a record per field asked for."""

    count: int
    fields: Sequence[FieldCounts]
    applied: AppliedState | None = None


class Shard(Protocol):
    """One shard of the snapshots of a collection: in this process, behind gRPC, or elsewhere.

    Every method raises SnapshotGone where it does not hold the snapshot, and NotReady,
    DeadlineExceeded or Overloaded where it cannot answer now. With a watermark they wait until live
    changes have been applied that far: NotReady where that takes too long, SnapshotMismatch where
    it is of another log, Unsupported where none is followed.

    has_words: It can be searched by words, where the snapshot has any.
    """

    has_words: bool

    def search(
        self,
        snapshot_id: str,
        queries: ShardQueries,
        options: ShardOptions,
        deadline: float | None = None,
    ) -> Future[Sequence[ShardHits]]:
        """Searches; the call returns at once, and cancelling the future gives the place back.

        Args:
            snapshot_id: Snapshot to answer from.
            queries: Vectors finite and in C order, unit length where the metric is cosine.
            options: Options for all of them.
            deadline: Time of the running loop after which nobody waits any more; None: none.
        Returns: One record per query, in order.
        Raises (in the future): as above; InvalidRequest: an attribute that does not exist;
            Unsupported: the snapshot or its index cannot do that.
        """
        ...

    def fetch(
        self,
        snapshot_id: str,
        ids: Sequence[str],
        payload: frozenset[PayloadField],
        deadline: float | None = None,
        chunks: Sequence[int] = (),
        min_watermark: Watermark | None = None,
        filter: Filter | None = None,
    ) -> Awaitable[ShardItems]:
        """Reads items by id, in the order asked; those that do not exist, or match, are left out.

        The vector is that of the document: the mean of its chunks' vectors, at unit length where
        the metric is cosine. With chunks, one number per id, text and vector are those of the
        chunk.
        """
        ...

    def scan(
        self,
        snapshot_id: str,
        after_id: str,
        limit: int,
        filter: Filter | None,
        payload: frozenset[PayloadField],
        deadline: float | None = None,
        min_watermark: Watermark | None = None,
    ) -> Awaitable[ShardItems]:
        """Reads the first `limit` items after an id that match, in id order."""
        ...

    def count(
        self,
        snapshot_id: str,
        filter: Filter | None,
        fields: Sequence[str],
        deadline: float | None = None,
        min_watermark: Watermark | None = None,
    ) -> Awaitable[ShardCounts]:
        """Counts the items that match, and the values of attributes among them."""
        ...

    async def ready(self, snapshot_id: str) -> int:
        """Counts the replicas that answer from this snapshot now; True is 1, False is 0."""
        ...

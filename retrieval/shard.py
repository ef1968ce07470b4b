"""The seam between the router and what holds a part of a snapshot."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Attributes, HitLevel, Item, PayloadField, SearchOptions


class ShardOptions(NamedTuple):
    """Options of a search inside one shard; queries with equal ones may share a batch.

    See SearchOptions in retrieval.proto for the ranges. `k` may exceed the public limit by what
    the router leaves out afterwards.
    """

    k: int
    level: HitLevel = HitLevel.DOCUMENT
    payload: frozenset[PayloadField] = frozenset()
    ef_search: int | None = None
    nprobe: int | None = None
    exact: bool = False

    @classmethod
    def of(cls, options: SearchOptions, k: int) -> ShardOptions:
        """Gives what a shard needs to know of search options; k is what is asked of each shard."""
        return cls(
            k, options.level, options.payload, options.ef_search, options.nprobe, options.exact
        )


class HitPayload(NamedTuple):
    """Parts of one hit; those not asked for are None."""

    title: str | None
    text: str | None
    attributes: Attributes | None
    vector: NDArray[np.float32] | None


@dataclass(slots=True)
class ShardHits:
    """Hits of one query in one shard, columns side by side.

    Ordered by (score descending, document id ascending, chunk ascending). payloads is empty where
    none was asked for.
    """

    ids: Sequence[str]
    scores: Sequence[float]
    chunks: Sequence[int]
    starts: Sequence[int]
    ends: Sequence[int]
    payloads: Sequence[HitPayload] = ()


class Shard(Protocol):
    """One shard of the snapshots of a collection: in this process, behind gRPC, or elsewhere."""

    def search(
        self,
        snapshot_id: str,
        vectors: NDArray[np.float32],
        options: ShardOptions,
        deadline: float | None = None,
    ) -> Future[Sequence[ShardHits]]:
        """Searches; the call returns at once, and cancelling the future gives the place back.

        Args:
            snapshot_id: Snapshot to answer from.
            vectors: (n, d) float32, C order, finite; unit length where the metric is cosine.
            options: Options for all of them.
            deadline: Time of the running loop after which nobody waits any more; None: none.
        Returns: One record per query, in order.
        Raises (in the future): SnapshotGone, Unsupported, NotReady, DeadlineExceeded.
        """
        ...

    def fetch(
        self,
        snapshot_id: str,
        ids: Sequence[str],
        payload: frozenset[PayloadField],
        deadline: float | None = None,
    ) -> Awaitable[Sequence[Item]]:
        """Reads items by id, in the order asked; ids that do not exist are left out.

        The vector is that of the document: the mean of its chunks' vectors, at unit length where
        the metric is cosine.
        """
        ...

    async def ready(self, snapshot_id: str) -> bool:
        """Tells whether the shard answers from this snapshot now."""
        ...

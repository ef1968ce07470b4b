"""Results of changes to items, and the protocol for writing them."""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from nearline.contract.records import Item
from nearline.contract.terms import DEFAULT_COLLECTION, Lane, WriteOutcome

MAX_KEY_BYTES = 128
MAX_ID_BYTES = 512
# Of an item that is changed live. A text of this size has a thousand chunks or more, which take a
# processor ten seconds or more to embed; the title precedes each of them.
MAX_TEXT_BYTES = 1 << 20
MAX_TITLE_BYTES = 16 << 10
MAX_ATTRIBUTES_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteResult:
    """The outcome of one change; see WriteResult in retrieval.proto.

    version: Number of the change if one was made; the item's current version if the change was
    rejected because of its `if_versions`; otherwise 0.
    """

    id: str
    outcome: WriteOutcome
    version: int = 0
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteReply:
    """Outcomes of a request, item by item. watermark: For reads that must see the changes."""

    results: Sequence[WriteResult]
    watermark: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkWriteReply:
    """Outcomes of many batches: counts of items by outcome, and the first 1,000 rejections."""

    watermark: bytes
    counts: Mapping[WriteOutcome, int] = field(default_factory=dict)
    rejections: Sequence[WriteResult] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FilteredDeletion:
    """Result of deleting the items that match a filter.

    deleted: Number of items. more: Whether more may match. watermark: For reads that must see it.
    """

    deleted: int
    more: bool = False
    watermark: bytes = b""


class ItemWriter(Protocol):
    """Changes items; satisfied by the service object and by the client.

    Every method raises NotReady if the change log is down or not durable (with retry_after_s),
    Unsupported if there is no change log, and NotFound, InvalidRequest, Conflict, SnapshotMismatch,
    Overloaded, DeadlineExceeded.
    """

    async def upsert_items(
        self,
        items: Sequence[Item],
        *,
        collection: str = DEFAULT_COLLECTION,
        if_versions: Mapping[str, int] | None = None,
        idempotency_key: str = "",
        only_attributes: bool = False,
        as_of: Mapping[str, datetime] | None = None,
        lane: Lane | None = None,
        timeout_s: float | None = None,
    ) -> WriteReply:
        """Adds or replaces 1..1024 items; returns when they are durable.

        as_of: Time of each change, by id; a change without one takes effect now. lane: Lane of the
        embedder; if None, it depends on the size of the request. See UpsertItemsRequest in
        retrieval.proto.

        Raises: FeedBlocked: Redis, a disk or memory is nearly full; deletes still pass.
        """
        ...

    async def delete_items(
        self,
        ids: Sequence[str],
        *,
        collection: str = DEFAULT_COLLECTION,
        if_versions: Mapping[str, int] | None = None,
        idempotency_key: str = "",
        timeout_s: float | None = None,
    ) -> WriteReply:
        """Deletes 1..1024 items; ids that do not exist are not an error."""
        ...

    async def upsert_batches(
        self, batches: AsyncIterable[Sequence[Item]], *, collection: str = DEFAULT_COLLECTION
    ) -> BulkWriteReply:
        """Adds or replaces the items of many batches, each of 1..1024."""
        ...

    async def delete_batches(
        self, batches: AsyncIterable[Sequence[str]], *, collection: str = DEFAULT_COLLECTION
    ) -> BulkWriteReply:
        """Deletes the items of many batches, each of 1..1024 ids."""
        ...

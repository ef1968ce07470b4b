"""What the retrieval service and its client have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from nearline.contract.records import (
    CountReply,
    Facet,
    ItemsPage,
    ItemsReply,
    Query,
    SearchOptions,
    SearchReply,
)
from nearline.contract.terms import DEFAULT_COLLECTION, PayloadField
from nearline.filters import Filter


class Retriever(Protocol):
    """Finds items; satisfied by the service object and by the client alike.

    min_watermark: The watermark of a reply; the answer is then from a state at least that new.
    Empty: from any. Raises NotApplied where no shard gets there in time, SnapshotMismatch where it
    is of another change log, Unsupported where none is followed.
    """

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
        min_watermark: bytes = b"",
        timeout_s: float | None = None,
    ) -> ItemsReply:
        """Reads items by id; ids that do not exist are in ignored_ids."""
        ...

    async def list_items(
        self,
        *,
        page_size: int = 100,
        page_token: str = "",
        filter: Filter | None = None,
        payload: frozenset[PayloadField] = ...,
        collection: str = DEFAULT_COLLECTION,
        min_watermark: bytes = b"",
        timeout_s: float | None = None,
    ) -> ItemsPage:
        """Reads a page of all items, or of those that match, in id order.

        Raises: SnapshotGone: the snapshot of the token is no longer loaded; start again.
        """
        ...

    async def count_items(
        self,
        filter: Filter | None = None,
        facets: Sequence[Facet] = (),
        *,
        collection: str = DEFAULT_COLLECTION,
        min_watermark: bytes = b"",
        timeout_s: float | None = None,
    ) -> CountReply:
        """Counts the items that match a filter, and values of attributes among them."""
        ...

"""The protocol of the retrieval service and its client."""

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
    SuggestReply,
)
from nearline.contract.terms import DEFAULT_COLLECTION, PayloadField
from nearline.filters import Filter


class Retriever(Protocol):
    """Finds items; satisfied by the service object and by the client.

    min_watermark: The watermark of an earlier reply; the answer reflects a state at least as new.
    If empty, any state is accepted. Raises NotApplied if no shard reaches it in time,
    SnapshotMismatch if it belongs to a different change log, Unsupported if no log is followed.
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
        """Returns items by id; ids that do not exist are in `ignored_ids`."""
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
        """Returns a page of all items, or of those that match a filter, in id order.

        Raises: SnapshotGone: the token's snapshot is no longer loaded; start again.
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
        """Counts the items that match a filter, and their most frequent attribute values."""
        ...

    async def suggest(
        self,
        text: str,
        *,
        limit: int = 10,
        filter: Filter | None = None,
        collection: str = DEFAULT_COLLECTION,
        min_watermark: bytes = b"",
        timeout_s: float | None = None,
    ) -> SuggestReply:
        """Returns titles that complete what somebody types.

        Args:
            text: 1..256 characters; the last word may be incomplete unless a space follows.
            limit: Most suggestions, 1..100.
            filter: Restricts them to items that match.
        Raises: Unsupported: the collection has no lexical index of titles.
        """
        ...

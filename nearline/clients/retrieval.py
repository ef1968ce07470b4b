"""Async client of the retrieval service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence

from nearline import contract as c
from nearline import wire
from nearline.channel import ServiceChannel
from nearline.clients.waiting import limit_s
from nearline.v1 import retrieval_pb2, retrieval_pb2_grpc

DEFAULT_OPTIONS = c.SearchOptions()
ALL_BUT_VECTOR = frozenset(c.PayloadField) - {c.PayloadField.VECTOR}


class RetrievalClient(ServiceChannel):
    """Client of the retrieval service; a `Retriever`.

    Args:
        address: "host:port" of the service.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._stub = retrieval_pb2_grpc.RetrievalServiceStub(self.grpc_channel)

    async def search(
        self,
        query: c.Query,
        options: c.SearchOptions = DEFAULT_OPTIONS,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.SearchReply:
        """Finds the best items for one query; see `Retriever.search`. timeout_s: None is 10 s."""
        request = retrieval_pb2.SearchRequest(
            collection=collection,
            query=wire.query_to_proto(query),
            options=wire.options_to_proto(options),
        )
        return wire.search_reply(
            await self.call(lambda: self._stub.Search(request, timeout=limit_s(timeout_s)))
        )

    async def search_batch(
        self,
        queries: Sequence[c.Query],
        options: c.SearchOptions = DEFAULT_OPTIONS,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.SearchReply:
        """Finds the best items for 1..1024 queries, all from one snapshot."""
        request = retrieval_pb2.SearchBatchRequest(
            collection=collection,
            queries=[wire.query_to_proto(query) for query in queries],
            options=wire.options_to_proto(options),
        )
        return wire.batch_reply(
            await self.call(lambda: self._stub.SearchBatch(request, timeout=limit_s(timeout_s)))
        )

    async def get_items(
        self,
        ids: Sequence[str],
        payload: Iterable[c.PayloadField] = ALL_BUT_VECTOR,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.ItemsReply:
        """Reads items by id; ids that do not exist are in `ignored_ids`."""
        request = retrieval_pb2.GetItemsRequest(
            collection=collection, ids=ids, payload=wire.payload_to_proto(payload)
        )
        return wire.items_reply(
            await self.call(lambda: self._stub.GetItems(request, timeout=limit_s(timeout_s)))
        )

    async def list_items(
        self,
        *,
        page_size: int = 100,
        page_token: str = "",
        filter: c.Filter | None = None,
        payload: Iterable[c.PayloadField] = (),
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.ItemsPage:
        """Reads a page of items in id order; see `Retriever.list_items`."""
        request = retrieval_pb2.ListItemsRequest(
            collection=collection,
            page_size=page_size,
            page_token=page_token,
            filter=None if filter is None else wire.filter_to_proto(filter),
            payload=wire.payload_to_proto(payload),
        )
        return wire.items_page(
            await self.call(lambda: self._stub.ListItems(request, timeout=limit_s(timeout_s)))
        )

    async def items(
        self,
        filter: c.Filter | None = None,
        payload: Iterable[c.PayloadField] = (),
        *,
        collection: str = c.DEFAULT_COLLECTION,
    ) -> AsyncIterator[c.Item]:
        """Yields all items that match, in id order, page by page, from one snapshot."""
        wanted = frozenset(payload)
        token = ""
        while True:
            page = await self.list_items(
                page_size=c.MAX_PAGE,
                page_token=token,
                filter=filter,
                payload=wanted,
                collection=collection,
            )
            for item in page.items:
                yield item
            token = page.next_page_token
            if not token:
                return

    async def count_items(
        self,
        filter: c.Filter | None = None,
        facets: Sequence[c.Facet] = (),
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.CountReply:
        """Counts items and values of attributes; see `Retriever.count_items`."""
        request = retrieval_pb2.CountItemsRequest(
            collection=collection,
            filter=None if filter is None else wire.filter_to_proto(filter),
            facets=[retrieval_pb2.Facet(field=one.field, limit=one.limit) for one in facets],
        )
        return wire.count_reply(
            await self.call(lambda: self._stub.CountItems(request, timeout=limit_s(timeout_s)))
        )

"""Async client of the retrieval service."""

from __future__ import annotations

import secrets
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from datetime import datetime
from functools import partial
from typing import Any, cast

from nearline import contract as c, wire
from nearline.channel import ServiceChannel, send_requests
from nearline.clients.arguments import SEARCH_PAYLOAD, converts_arguments
from nearline.retry import retry_while_overloaded
from nearline.tls import TlsFiles
from nearline.v1 import retrieval_pb2, retrieval_pb2_grpc, types_pb2

DEFAULT_OPTIONS = c.SearchOptions(payload=SEARCH_PAYLOAD)
DEFAULT_LIST = c.RecommendOptions(payload=SEARCH_PAYLOAD)
_WRITE_TIMEOUT_S, _MATCHING_TIMEOUT_S = 60.0, 120.0  # Many texts may need embedding first.
ALL_BUT_VECTOR = frozenset(c.PayloadField) - {c.PayloadField.VECTOR, c.PayloadField.SECTION}


@converts_arguments
class RetrievalClient(ServiceChannel):
    """Client of the retrieval service; a `Retriever`, an `ItemWriter` and a `Recommender`.

    Like all clients it takes the texts of enums ("dense"), filters as texts ("price < 80") or dicts
    (see `filter_from_json`), lists and arrays of numbers as vectors, integers as ids, and numpy's
    values. It raises InvalidRequest for any other type, and for NaN and infinity.

    Args:
        address: "host:port" of the service.
        token, tls, lane: See `ServiceChannel`.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        tls: TlsFiles | None = None,
        lane: c.Lane | str = c.Lane.INTERACTIVE,
    ) -> None:
        super().__init__(address, token=token, tls=tls, lane=cast(c.Lane, lane))
        self._stub = retrieval_pb2_grpc.RetrievalServiceStub(self.grpc_channel)

    async def search(
        self,
        query: c.QueryLike,
        options: c.SearchOptions = DEFAULT_OPTIONS,
        *,
        page_token: str = "",
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.SearchReply:
        """Finds the best items for one query; see `Retriever.search`. Default timeout: 10 s.

        A text is a query, and so is a vector. Titles and texts are returned unless
        `options.payload` is set. page_token: `next_page_token` of the page before, for the hits
        after it; up to 10,000 hits.
        """
        request = retrieval_pb2.SearchRequest(
            collection=collection,
            query=wire.query_to_proto(cast(c.Query, query)),
            options=wire.options_to_proto(options),
            page_token=page_token,
        )
        return wire.search_reply(await self.send(self._stub.Search, request, timeout_s))

    async def search_batch(
        self,
        queries: Sequence[c.QueryLike],
        options: c.SearchOptions = DEFAULT_OPTIONS,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.SearchReply:
        """Finds the best items for 1..1024 queries, all from one snapshot."""
        request = retrieval_pb2.SearchBatchRequest(
            collection=collection,
            queries=[wire.query_to_proto(query) for query in cast(Sequence[c.Query], queries)],
            options=wire.options_to_proto(options),
        )
        return wire.batch_reply(await self.send(self._stub.SearchBatch, request, timeout_s))

    async def get_items(
        self,
        ids: Iterable[c.Id],
        payload: c.PayloadLike = ALL_BUT_VECTOR,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        min_watermark: bytes = b"",
        timeout_s: float | None = None,
    ) -> c.ItemsReply:
        """Returns items by id; ids that do not exist are in `ignored_ids`."""
        request = retrieval_pb2.GetItemsRequest(
            collection=collection,
            ids=cast(Sequence[str], ids),
            payload=wire.payload_to_proto(cast(Iterable[c.PayloadField], payload)),
            min_watermark=min_watermark,
        )
        return wire.items_reply(await self.send(self._stub.GetItems, request, timeout_s))

    async def list_items(
        self,
        *,
        page_size: int = 100,
        page_token: str = "",
        filter: c.FilterLike | None = None,
        payload: c.PayloadLike = (),
        collection: str = c.DEFAULT_COLLECTION,
        min_watermark: bytes = b"",
        timeout_s: float | None = None,
    ) -> c.ItemsPage:
        """Returns a page of items in id order; see `Retriever.list_items`."""
        request = retrieval_pb2.ListItemsRequest(
            collection=collection,
            page_size=page_size,
            page_token=page_token,
            filter=_filter_to_proto(filter),
            payload=wire.payload_to_proto(cast(Iterable[c.PayloadField], payload)),
            min_watermark=min_watermark,
        )
        return wire.items_page(await self.send(self._stub.ListItems, request, timeout_s))

    async def items(
        self,
        filter: c.FilterLike | None = None,
        payload: c.PayloadLike = (),
        *,
        collection: str = c.DEFAULT_COLLECTION,
    ) -> AsyncGenerator[c.Item, None]:
        """Yields all items that match, in id order, page by page, from one snapshot."""
        fields = frozenset(payload)

        async def page(token: str) -> c.ItemsPage:
            return await self.list_items(
                page_size=c.MAX_PAGE,
                page_token=token,
                filter=filter,
                payload=fields,
                collection=collection,
            )

        async for item in pages(page):
            yield item

    async def count_items(
        self,
        filter: c.FilterLike | None = None,
        facets: Sequence[c.Facet | str] = (),
        *,
        collection: str = c.DEFAULT_COLLECTION,
        min_watermark: bytes = b"",
        timeout_s: float | None = None,
    ) -> c.CountReply:
        """Counts items and attribute values; see `Retriever.count_items`."""
        request = retrieval_pb2.CountItemsRequest(
            collection=collection,
            filter=_filter_to_proto(filter),
            facets=[
                retrieval_pb2.Facet(field=one.field, limit=one.limit)
                for one in cast(Sequence[c.Facet], facets)
            ],
            min_watermark=min_watermark,
        )
        return wire.count_reply(await self.send(self._stub.CountItems, request, timeout_s))

    async def suggest(
        self,
        text: str,
        *,
        limit: int = 10,
        filter: c.FilterLike | None = None,
        collection: str = c.DEFAULT_COLLECTION,
        min_watermark: bytes = b"",
        timeout_s: float | None = None,
    ) -> c.SuggestReply:
        """Returns titles that complete what somebody types; see `Retriever.suggest`."""
        request = retrieval_pb2.SuggestRequest(
            collection=collection,
            text=text,
            limit=limit,
            filter=_filter_to_proto(filter),
            min_watermark=min_watermark,
        )
        return wire.suggest_reply(await self.send(self._stub.Suggest, request, timeout_s))

    async def upsert_items(
        self,
        items: Sequence[c.Item],
        *,
        collection: str = c.DEFAULT_COLLECTION,
        if_versions: Mapping[str, int] | None = None,
        idempotency_key: str = "",
        only_attributes: bool = False,
        as_of: Mapping[str, datetime] | None = None,
        lane: c.Lane | str | None = None,
        timeout_s: float | None = None,
    ) -> c.WriteReply:
        """Adds or replaces 1..1024 items; see `ItemWriter.upsert_items`.

        idempotency_key: If empty, a random key is used, so that retries take effect only once. The
        default timeout is 60 s.
        """
        request = wire.upsert_request(
            items,
            collection,
            if_versions=if_versions,
            idempotency_key=idempotency_key or _new_key(),
            only_attributes=only_attributes,
            as_of=as_of,
            lane=cast("c.Lane | None", lane),
        )
        return wire.write_reply(
            await self.send(self._stub.UpsertItems, request, timeout_s, default_s=_WRITE_TIMEOUT_S)
        )

    async def delete_items(
        self,
        ids: Iterable[c.Id],
        *,
        collection: str = c.DEFAULT_COLLECTION,
        if_versions: Mapping[str, int] | None = None,
        idempotency_key: str = "",
        timeout_s: float | None = None,
    ) -> c.WriteReply:
        """Deletes 1..1024 items; see `upsert_items` for the key and the timeout."""
        request = wire.delete_request(
            cast(Sequence[str], ids),
            collection,
            if_versions=if_versions,
            idempotency_key=idempotency_key or _new_key(),
        )
        return wire.write_reply(
            await self.send(self._stub.DeleteItems, request, timeout_s, default_s=_WRITE_TIMEOUT_S)
        )

    async def delete_matching(
        self,
        filter: c.FilterLike,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        min_watermark: bytes = b"",
        timeout_s: float | None = None,
    ) -> c.FilteredDeletion:
        """Deletes all items that match a filter, at most 10,000 in each call to the service.

            await client.delete_matching("year < 2000")

        Args:
            filter: A text such as "year < 2000", or a filter.
            collection: Name of the collection.
            min_watermark: Matches are read from a state that includes it.
            timeout_s: Of each call.
        Raises: As `delete_items`; what was deleted by then stays deleted.
        """
        request = retrieval_pb2.DeleteItemsByFilterRequest(
            collection=collection, filter=_filter_to_proto(filter), min_watermark=min_watermark
        )
        deleted = 0
        while True:
            reply = await self.send(
                self._stub.DeleteItemsByFilter, request, timeout_s, default_s=_MATCHING_TIMEOUT_S
            )
            deleted += reply.deleted
            request.min_watermark = reply.watermark or request.min_watermark
            if not reply.more:
                return c.FilteredDeletion(deleted=deleted, watermark=request.min_watermark)

    async def upsert_batches(
        self, batches: AsyncIterable[Sequence[c.Item]], *, collection: str = c.DEFAULT_COLLECTION
    ) -> c.BulkWriteReply:
        """Adds or replaces the items of many batches; see `ItemWriter.upsert_batches`.

        There is no timeout. After a failure, resend the batches from the one that the error names:
        replacing an item by the same item is harmless.
        """

        async def requests() -> AsyncIterator[retrieval_pb2.UpsertItemsStreamRequest]:
            async for items in batches:
                request = wire.upsert_request(items, collection)
                yield retrieval_pb2.UpsertItemsStreamRequest(request=request)

        return wire.upsert_stream_reply(
            await self._stream(self._stub.UpsertItemsStream, requests())
        )

    async def delete_batches(
        self, batches: AsyncIterable[Sequence[c.Id]], *, collection: str = c.DEFAULT_COLLECTION
    ) -> c.BulkWriteReply:
        """Deletes the items of many batches; see `upsert_batches`."""

        async def requests() -> AsyncIterator[retrieval_pb2.DeleteItemsStreamRequest]:
            async for ids in batches:
                request = wire.delete_request(cast(Sequence[str], ids), collection)
                yield retrieval_pb2.DeleteItemsStreamRequest(request=request)

        return wire.delete_stream_reply(
            await self._stream(self._stub.DeleteItemsStream, requests())
        )

    async def recommend(
        self,
        audience: c.Audience | str,
        options: c.RecommendOptions = DEFAULT_LIST,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.RecommendReply:
        """Recommends a list; see `Recommender.recommend`. Default timeout: 10 s.

        A text is a user's id. Titles and texts are returned unless `options.payload` is set.
        """
        request = wire.recommend_request(cast(c.Audience, audience), options, collection)
        return wire.recommend_reply(await self.send(self._stub.Recommend, request, timeout_s))

    async def record_interactions(
        self,
        interactions: Sequence[c.Interaction],
        *,
        collection: str = c.DEFAULT_COLLECTION,
        idempotency_key: str = "",
        timeout_s: float | None = None,
    ) -> c.RecordReply:
        """Stores 1..1024 interactions; see `Recommender.record_interactions`.

        idempotency_key: If empty, a random key is used, so that retries take effect only once.
        """
        request = retrieval_pb2.RecordInteractionsRequest(
            collection=collection,
            interactions=map(wire.interaction_to_proto, interactions),
            idempotency_key=idempotency_key or _new_key(),
        )
        reply = await self.send(self._stub.RecordInteractions, request, timeout_s)
        return c.RecordReply(reply.recorded, reply.duplicates, reply.unknown_items)

    async def import_interactions(
        self,
        batches: AsyncIterable[c.InteractionColumns],
        *,
        import_id: str,
        first_row: int = 0,
        collection: str = c.DEFAULT_COLLECTION,
    ) -> c.ImportReply:
        """Stores interactions of the past, for the next training; see `Recommender`.

        There is no deadline.
        """

        async def requests() -> AsyncIterator[retrieval_pb2.ImportInteractionsRequest]:
            async for columns in batches:
                yield wire.import_request(columns, import_id, first_row, collection)

        reply = await self._stream(self._stub.ImportInteractions, requests())
        return c.ImportReply(reply.rows, reply.recorded, reply.duplicates)

    async def set_user(
        self,
        user_id: c.Id,
        attributes: c.Attributes,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> None:
        """Sets the attributes of a user; see `Recommender.set_user`."""
        request = retrieval_pb2.SetUserRequest(
            collection=collection,
            user_id=cast(str, user_id),
            attributes=wire.values_by_name(attributes),
        )
        await self.send(self._stub.SetUser, request, timeout_s)

    async def get_user(
        self,
        user_id: c.Id,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.UserRecord:
        """Returns the stored data of a user; see `Recommender.get_user`."""
        request = retrieval_pb2.GetUserRequest(collection=collection, user_id=cast(str, user_id))
        return wire.user_record(await self.send(self._stub.GetUser, request, timeout_s))

    async def delete_user(
        self,
        user_id: c.Id,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.DeletionReceipt:
        """Deletes all stored data of a user; see `Recommender.delete_user`.

        The default timeout is 60 s.
        """
        request = retrieval_pb2.DeleteUserRequest(collection=collection, user_id=cast(str, user_id))
        return wire.deletion_receipt(
            await self.send(self._stub.DeleteUser, request, timeout_s, default_s=_WRITE_TIMEOUT_S)
        )

    async def _stream(self, method: Callable[[], Any], requests: AsyncIterator[Any]) -> Any:
        """Sends requests and returns the reply; see `send_requests`."""
        call = self.begin(method)
        await send_requests(call, requests)
        return await self.call(lambda: call)


async def pages(
    page: Callable[[str], Awaitable[c.ItemsPage]],
) -> AsyncGenerator[c.Item, None]:
    """Yields the items of all pages. page: Returns the page of a token; that of "" is the first."""
    token = ""
    while True:
        found = await retry_while_overloaded(partial(page, token))
        for item in found.items:
            yield item
        token = found.next_page_token
        if not token:
            return


def _filter_to_proto(condition: c.FilterLike | None) -> types_pb2.Filter | None:
    """Returns the message of a filter that is converted, or None."""
    return None if condition is None else wire.filter_to_proto(cast(c.Filter, condition))


def _new_key() -> str:
    return secrets.token_hex(16)

"""The gRPC servicer of retrieval: converts messages to records and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import TypeVar

from nearline import contract as c, wire
from nearline.access.caller import Caller
from nearline.access.limits import check_limit, page_size
from nearline.access.method_guard import current_caller, current_limits
from nearline.access.tenant_ids import shown_id, stored_id, stored_key
from nearline.calls.guard import Context, time_left_s
from nearline.errors import InvalidRequest, Unsupported
from nearline.v1 import retrieval_pb2, retrieval_pb2_grpc
from retrieval.protocols.compute_threads import read_request, run_stoppable
from retrieval.router.search_limits import (
    check_filter_limits,
    check_list_limits,
    check_search_limits,
)
from retrieval.router.search_page import SearchPage
from retrieval.writes.bulk import WriteBatch, write_batches
from retrieval.writes.filtered_deletion import delete_matching

_Named = TypeVar("_Named", c.Audience, c.Interaction, c.SearchOptions)
# Larger replies are converted in a thread: converting 131,072 hits takes a tenth of a second.
_HITS_PER_TURN = 4_096


class RetrievalServicer(retrieval_pb2_grpc.RetrievalServiceServicer):
    """Serves searches, recommendations, reads and writes of items, and user data.

    Args:
        service: Finds items.
        recommender: Recommends items; without it, the methods for recommendations and user data
            return UNIMPLEMENTED.
        writer: Changes items; without it, the methods that write items return UNIMPLEMENTED.
    """

    def __init__(
        self,
        service: c.Retriever,
        recommender: c.Recommender | None = None,
        writer: c.ItemWriter | None = None,
    ) -> None:
        self._service = service
        self._recommender = recommender
        self._writer = writer

    async def Search(
        self, request: retrieval_pb2.SearchRequest, context: Context
    ) -> retrieval_pb2.SearchResponse:
        """Finds the best items for one query."""
        options = _search_options(request.options)
        page = SearchPage.of(request.page_token, options)
        options = page.widened(options)
        check_search_limits(current_limits(), 1, options)
        reply = await self._service.search(
            wire.query_from_proto(request.query),
            options,
            collection=request.collection or c.DEFAULT_COLLECTION,
            timeout_s=time_left_s(context),
        )
        return wire.search_response(page.cut(reply, options))

    async def SearchBatch(
        self, request: retrieval_pb2.SearchBatchRequest, context: Context
    ) -> retrieval_pb2.SearchBatchResponse:
        """Finds the best items for many queries."""
        options = _search_options(request.options)
        check_search_limits(current_limits(), len(request.queries), options)
        reply = await self._service.search_batch(
            wire.queries_from_proto(request.queries),
            options,
            collection=request.collection or c.DEFAULT_COLLECTION,
            timeout_s=time_left_s(context),
        )
        if sum(len(result.hits) for result in reply.results) <= _HITS_PER_TURN:
            return wire.batch_response(reply)
        return await run_stoppable(lambda stopped: wire.batch_response(reply))

    async def Recommend(
        self, request: retrieval_pb2.RecommendRequest, context: Context
    ) -> retrieval_pb2.RecommendResponse:
        """Recommends items for a user, a session or example items."""
        caller = current_caller()
        audience = wire.audience_from_proto(request)
        if not caller.names_tenants:
            audience = _as_stored(caller, audience)
        options = wire.recommend_options(request)
        check_list_limits(current_limits(), options)
        reply = await self._required_recommender().recommend(
            audience,
            options,
            collection=request.collection or c.DEFAULT_COLLECTION,
            timeout_s=time_left_s(context),
        )
        return wire.recommend_response(reply)

    async def RecordInteractions(
        self, request: retrieval_pb2.RecordInteractionsRequest, context: Context
    ) -> retrieval_pb2.RecordInteractionsResponse:
        """Records interactions such as views and purchases."""
        caller = current_caller()
        interactions = wire.interactions_from_proto(request.interactions)
        if not caller.names_tenants:
            interactions = [
                _as_stored(caller, one, f"interactions[{number}].")
                for number, one in enumerate(interactions)
            ]
        reply = await self._required_recommender().record_interactions(
            interactions,
            collection=request.collection or c.DEFAULT_COLLECTION,
            idempotency_key=stored_key(caller, request.idempotency_key),
            timeout_s=time_left_s(context),
        )
        return retrieval_pb2.RecordInteractionsResponse(
            recorded=reply.recorded,
            duplicates=reply.duplicates,
            unknown_items=reply.unknown_items,
        )

    async def ImportInteractions(
        self,
        request_iterator: AsyncIterator[retrieval_pb2.ImportInteractionsRequest],
        context: Context,
    ) -> retrieval_pb2.ImportInteractionsResponse:
        """Adds interactions of the past to what models learn from."""
        recommender, caller = self._required_recommender(), current_caller()
        first = await anext(request_iterator, None)
        if first is None:
            raise InvalidRequest("the stream has no batch; send one", field="request")
        about = _import_of(first)

        async def batches() -> AsyncIterator[c.InteractionColumns]:
            message: retrieval_pb2.ImportInteractionsRequest | None = first
            while message is not None:
                if _import_of(message) != about:
                    raise InvalidRequest(
                        "a batch names another collection, import_id or first_row than the first "
                        "one; use one stream for each",
                        field="request",
                    )
                yield await read_request(partial(_columns_of, caller), message.request)
                message = await anext(request_iterator, None)

        collection, import_id, first_row = about
        reply = await recommender.import_interactions(
            batches(),
            # The key of a tenant has a slash, which a folder may not.
            import_id=stored_key(caller, import_id).replace("/", "."),
            first_row=first_row,
            collection=collection,
        )
        return retrieval_pb2.ImportInteractionsResponse(
            rows=reply.rows, recorded=reply.recorded, duplicates=reply.duplicates
        )

    async def SetUser(
        self, request: retrieval_pb2.SetUserRequest, context: Context
    ) -> retrieval_pb2.SetUserResponse:
        """Sets the attributes of a user."""
        await self._required_recommender().set_user(
            stored_id(current_caller(), request.user_id, "user_id"),
            wire.user_attributes(request.attributes, "attributes"),
            collection=request.collection or c.DEFAULT_COLLECTION,
            timeout_s=time_left_s(context),
        )
        return retrieval_pb2.SetUserResponse()

    async def GetUser(
        self, request: retrieval_pb2.GetUserRequest, context: Context
    ) -> retrieval_pb2.GetUserResponse:
        """Returns the data stored about a user."""
        caller = current_caller()
        record = await self._required_recommender().get_user(
            stored_id(caller, request.user_id, "user_id"),
            collection=request.collection or c.DEFAULT_COLLECTION,
            timeout_s=time_left_s(context),
        )

        def respond() -> retrieval_pb2.GetUserResponse:
            shown = record
            if not caller.names_tenants:
                shown = replace(
                    record,
                    interactions=[_as_shown(caller, one) for one in record.interactions],
                    learned=[_as_shown(caller, one) for one in record.learned],
                )
            return wire.user_response(shown)

        # Thousands of interactions would hold the event loop.
        return await asyncio.to_thread(respond)

    async def DeleteUser(
        self, request: retrieval_pb2.DeleteUserRequest, context: Context
    ) -> retrieval_pb2.DeleteUserResponse:
        """Deletes everything stored about a user."""
        receipt = await self._required_recommender().delete_user(
            stored_id(current_caller(), request.user_id, "user_id"),
            collection=request.collection or c.DEFAULT_COLLECTION,
            timeout_s=time_left_s(context),
        )
        return wire.deletion_response(receipt)

    async def GetItems(
        self, request: retrieval_pb2.GetItemsRequest, context: Context
    ) -> retrieval_pb2.GetItemsResponse:
        """Reads items by id."""
        for whose, limits in current_limits():
            check_limit(whose, limits, "page", len(request.ids), "ids")
        reply = await self._service.get_items(
            request.ids,
            wire.payload_from_proto(request.payload),
            collection=request.collection or c.DEFAULT_COLLECTION,
            min_watermark=request.min_watermark,
            timeout_s=time_left_s(context),
        )
        return wire.items_response(reply)

    async def ListItems(
        self, request: retrieval_pb2.ListItemsRequest, context: Context
    ) -> retrieval_pb2.ListItemsResponse:
        """Reads a page of items."""
        filter = wire.filter_of(request)
        check_filter_limits(current_limits(), filter)
        reply = await self._service.list_items(
            page_size=page_size(current_limits(), request.page_size),
            page_token=request.page_token,
            filter=filter,
            payload=wire.payload_from_proto(request.payload),
            collection=request.collection or c.DEFAULT_COLLECTION,
            min_watermark=request.min_watermark,
            timeout_s=time_left_s(context),
        )
        return wire.list_response(reply)

    async def CountItems(
        self, request: retrieval_pb2.CountItemsRequest, context: Context
    ) -> retrieval_pb2.CountItemsResponse:
        """Counts items and values of attributes."""
        filter = wire.filter_of(request)
        check_filter_limits(current_limits(), filter)
        reply = await self._service.count_items(
            filter,
            wire.facets_from_proto(request.facets),
            collection=request.collection or c.DEFAULT_COLLECTION,
            min_watermark=request.min_watermark,
            timeout_s=time_left_s(context),
        )
        return wire.count_response(reply)

    async def Suggest(
        self, request: retrieval_pb2.SuggestRequest, context: Context
    ) -> retrieval_pb2.SuggestResponse:
        """Completes a title."""
        filter = wire.filter_of(request)
        check_filter_limits(current_limits(), filter)
        reply = await self._service.suggest(
            request.text,
            limit=request.limit or 10,
            filter=filter,
            collection=request.collection or c.DEFAULT_COLLECTION,
            min_watermark=request.min_watermark,
            timeout_s=time_left_s(context),
        )
        return wire.suggest_response(reply)

    async def UpsertItems(
        self, request: retrieval_pb2.UpsertItemsRequest, context: Context
    ) -> retrieval_pb2.UpsertItemsResponse:
        """Adds or replaces items."""
        reply = await self._upsert(request, time_left_s(context))
        return wire.upsert_response(reply)

    async def DeleteItems(
        self, request: retrieval_pb2.DeleteItemsRequest, context: Context
    ) -> retrieval_pb2.DeleteItemsResponse:
        """Deletes items."""
        reply = await self._delete(request, time_left_s(context))
        return wire.delete_response(reply)

    async def DeleteItemsByFilter(
        self, request: retrieval_pb2.DeleteItemsByFilterRequest, context: Context
    ) -> retrieval_pb2.DeleteItemsByFilterResponse:
        """Deletes items that match a filter."""
        filter = wire.filter_of(request)
        check_filter_limits(current_limits(), filter)
        done = await delete_matching(
            self._service,
            self._required_writer(),
            filter,
            limit=request.limit,
            collection=request.collection or c.DEFAULT_COLLECTION,
            min_watermark=request.min_watermark,
            timeout_s=time_left_s(context),
        )
        return retrieval_pb2.DeleteItemsByFilterResponse(
            watermark=done.watermark, deleted=done.deleted, more=done.more
        )

    async def UpsertItemsStream(
        self,
        request_iterator: AsyncIterator[retrieval_pb2.UpsertItemsStreamRequest],
        context: Context,
    ) -> retrieval_pb2.UpsertItemsStreamResponse:
        """Adds or replaces the items of many batches."""

        async def batches() -> AsyncIterator[WriteBatch]:
            collection = None
            async for message in request_iterator:
                collection = _same_collection(collection, message.request.collection)
                yield partial(self._upsert, message.request, None)
                del message

        return wire.upsert_stream_response(await write_batches(batches()))

    async def DeleteItemsStream(
        self,
        request_iterator: AsyncIterator[retrieval_pb2.DeleteItemsStreamRequest],
        context: Context,
    ) -> retrieval_pb2.DeleteItemsStreamResponse:
        """Deletes the items of many batches."""

        async def batches() -> AsyncIterator[WriteBatch]:
            collection = None
            async for message in request_iterator:
                collection = _same_collection(collection, message.request.collection)
                yield partial(self._delete, message.request, None)
                del message

        return wire.delete_stream_response(await write_batches(batches()))

    def _required_recommender(self) -> c.Recommender:
        if self._recommender is None:
            raise Unsupported(
                "this service makes no recommendations; call the router of the collection"
            )
        return self._recommender

    def _required_writer(self) -> c.ItemWriter:
        if self._writer is None:
            raise Unsupported(
                "this service has no change log, so items cannot be changed; start the router "
                "with --redis URL (nearline up: without --no-redis), or build a new snapshot"
            )
        return self._writer

    async def _upsert(
        self, request: retrieval_pb2.UpsertItemsRequest, timeout_s: float | None
    ) -> c.WriteReply:
        writer = self._required_writer()
        return await writer.upsert_items(
            await read_request(wire.items_of, request),
            collection=request.collection or c.DEFAULT_COLLECTION,
            if_versions=wire.if_versions_of(request),
            idempotency_key=stored_key(current_caller(), request.idempotency_key),
            only_attributes=request.only_attributes,
            as_of=wire.as_of_of(request),
            lane=wire.lane_of(request),
            timeout_s=timeout_s,
        )

    async def _delete(
        self, request: retrieval_pb2.DeleteItemsRequest, timeout_s: float | None
    ) -> c.WriteReply:
        return await self._required_writer().delete_items(
            request.ids,
            collection=request.collection or c.DEFAULT_COLLECTION,
            if_versions=wire.if_versions_of(request),
            idempotency_key=stored_key(current_caller(), request.idempotency_key),
            timeout_s=timeout_s,
        )


def _search_options(message: retrieval_pb2.SearchOptions) -> c.SearchOptions:
    """Returns the options of a search, with the ids under which its user is stored."""
    caller, options = current_caller(), wire.options_from_proto(message)
    if caller.names_tenants or not (options.user_id or options.session_id):
        return options
    return _as_stored(caller, options, "options.")


def _as_stored(caller: Caller, one: _Named, path: str = "") -> _Named:
    """Returns a record with the ids under which its user and its session are stored.

    path: Path of the record in the request, for errors.
    """
    return replace(
        one,
        user_id=stored_id(caller, one.user_id, f"{path}user_id"),
        session_id=stored_id(caller, one.session_id, f"{path}session_id"),
    )


def _as_shown(caller: Caller, one: c.Interaction) -> c.Interaction:
    """Returns a stored interaction with the ids that its tenant knows."""
    return replace(
        one, user_id=shown_id(caller, one.user_id), session_id=shown_id(caller, one.session_id)
    )


def _import_of(message: retrieval_pb2.ImportInteractionsRequest) -> tuple[str, str, int]:
    """Returns the collection, the import and the first row of a batch."""
    batch = message.request
    return batch.collection or c.DEFAULT_COLLECTION, batch.import_id, batch.first_row


def _columns_of(caller: Caller, batch: retrieval_pb2.InteractionBatch) -> c.InteractionColumns:
    """Returns the columns of a batch, with the ids under which users are stored."""
    columns = wire.columns_of(batch)
    if caller.names_tenants:
        return columns
    stored = [stored_id(caller, one, "user_ids") for one in columns.user_ids]
    return columns._replace(user_ids=stored)


def _same_collection(previous: str | None, collection: str) -> str:
    """Returns the collection of a stream.

    Raises: InvalidRequest: a batch names a different collection than the batches before it.
    """
    if previous not in (None, collection):
        raise InvalidRequest(
            f"it names collection {collection!r}, but the batches before it name {previous!r}; use "
            "one stream per collection",
            field="request.collection",
        )
    return collection

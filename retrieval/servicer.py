"""RetrievalService over gRPC: messages to records and back, nothing else."""

from __future__ import annotations

from nearline import contract as c
from nearline import wire
from nearline.contract import Retriever
from nearline.errors import Unsupported
from nearline.guard import Context, time_left_s
from nearline.v1 import retrieval_pb2, retrieval_pb2_grpc


class RetrievalServicer(retrieval_pb2_grpc.RetrievalServiceServicer):
    """Answers for a retriever; methods of later versions stay UNIMPLEMENTED.

    Args:
        retriever: What answers.
    """

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever

    async def Search(
        self, request: retrieval_pb2.SearchRequest, context: Context
    ) -> retrieval_pb2.SearchResponse:
        """Finds the best items for one query."""
        reply = await self._retriever.search(
            wire.query_from_proto(request.query),
            wire.options_from_proto(request.options),
            collection=request.collection or c.DEFAULT_COLLECTION,
            timeout_s=time_left_s(context),
        )
        return wire.search_response(reply)

    async def SearchBatch(
        self, request: retrieval_pb2.SearchBatchRequest, context: Context
    ) -> retrieval_pb2.SearchBatchResponse:
        """Finds the best items for many queries."""
        reply = await self._retriever.search_batch(
            [wire.query_from_proto(query) for query in request.queries],
            wire.options_from_proto(request.options),
            collection=request.collection or c.DEFAULT_COLLECTION,
            timeout_s=time_left_s(context),
        )
        return wire.batch_response(reply)

    async def GetItems(
        self, request: retrieval_pb2.GetItemsRequest, context: Context
    ) -> retrieval_pb2.GetItemsResponse:
        """Reads items by id."""
        if request.min_watermark:
            raise Unsupported(
                "live changes are not served by this version; leave min_watermark empty",
                field="min_watermark",
            )
        reply = await self._retriever.get_items(
            request.ids,
            wire.payload_from_proto(request.payload),
            collection=request.collection or c.DEFAULT_COLLECTION,
            timeout_s=time_left_s(context),
        )
        return wire.items_response(reply)

    async def ListItems(
        self, request: retrieval_pb2.ListItemsRequest, context: Context
    ) -> retrieval_pb2.ListItemsResponse:
        """Reads a page of items."""
        reply = await self._retriever.list_items(
            page_size=request.page_size or 100,
            page_token=request.page_token,
            filter=wire.filter_of(request),
            payload=wire.payload_from_proto(request.payload),
            collection=request.collection or c.DEFAULT_COLLECTION,
            timeout_s=time_left_s(context),
        )
        return wire.list_response(reply)

    async def CountItems(
        self, request: retrieval_pb2.CountItemsRequest, context: Context
    ) -> retrieval_pb2.CountItemsResponse:
        """Counts items and values of attributes."""
        reply = await self._retriever.count_items(
            wire.filter_of(request),
            [c.Facet(field=one.field, limit=one.limit or 10) for one in request.facets],
            collection=request.collection or c.DEFAULT_COLLECTION,
            timeout_s=time_left_s(context),
        )
        return wire.count_response(reply)

"""RetrievalService over gRPC: messages to records and back, nothing else."""

from __future__ import annotations

import numpy as np

from nearline import contract as c
from nearline import wire
from nearline.contract import Retriever
from nearline.errors import Unsupported
from nearline.guard import Context, time_left_s
from nearline.v1 import retrieval_pb2, retrieval_pb2_grpc, types_pb2

_F32 = (types_pb2.DATA_TYPE_UNSPECIFIED, types_pb2.DATA_TYPE_F32)
_LITTLE_ENDIAN = np.dtype("<f4")


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
            _query(request.query),
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
            [_query(query) for query in request.queries],
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


def _query(message: retrieval_pb2.Query) -> c.Query:
    """Gives the query of a message; the service looks at the numbers of a vector again anyway."""
    if message.WhichOneof("kind") == "vector":
        vector = message.vector
        if vector.dtype in _F32 and len(vector.data) == 4 * vector.dim > 0:
            return c.Query(vector=np.frombuffer(vector.data, _LITTLE_ENDIAN))
    return wire.query_from_proto(message)

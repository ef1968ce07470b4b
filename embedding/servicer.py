"""gRPC adapter of the embedding service: converts messages to records and back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import grpc

from embedding.service import EmbedCall, EmbeddingService
from nearline import wire
from nearline.serving import Context, Registration, time_left_s
from nearline.v1 import embedding_pb2, embedding_pb2_grpc

SERVICE_NAME = "nearline.v1.EmbeddingService"


class EmbeddingServicer(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Serves an `EmbeddingService`.

    Args:
        service: Returns the service; called only once it is ready.
    """

    def __init__(self, service: Callable[[], EmbeddingService]) -> None:
        self._service = service

    async def Embed(
        self, request: embedding_pb2.EmbedRequest, context: Context
    ) -> embedding_pb2.EmbedResponse:
        """Embeds a batch of texts."""
        embeddings = await self._service().embed(
            request.texts,
            wire.role_from_proto(request.role),
            dimensions=_dimensions(request),
            expected_fingerprint=request.expected_fingerprint,
            lane=wire.lane_from_proto(request.lane),
            timeout_s=time_left_s(context),
        )
        return wire.embed_response(embeddings, request.dtype)

    async def EmbedStream(
        self, request_iterator: AsyncIterator[embedding_pb2.EmbedStreamRequest], context: Context
    ) -> AsyncIterator[embedding_pb2.EmbedStreamResponse]:
        """Embeds a stream of batches on the bulk lane."""
        dtypes: list[embedding_pb2.EmbedRequest] = []

        async def calls() -> AsyncIterator[EmbedCall]:
            async for message in request_iterator:
                dtypes.append(message.request)
                yield EmbedCall(
                    texts=message.request.texts,
                    role=wire.role_from_proto(message.request.role),
                    dimensions=_dimensions(message.request),
                    expected_fingerprint=message.request.expected_fingerprint,
                )

        async for embeddings in self._service().embed_stream(calls()):
            response = wire.embed_response(embeddings, dtypes.pop(0).dtype)
            yield embedding_pb2.EmbedStreamResponse(response=response)

    async def Rerank(
        self, request: embedding_pb2.RerankRequest, context: Context
    ) -> embedding_pb2.RerankResponse:
        """Scores texts against a query."""
        scores = await self._service().rerank(
            request.query,
            request.texts,
            snapshot=request.snapshot,
            lane=wire.lane_from_proto(request.lane),
            timeout_s=time_left_s(context),
        )
        return wire.rerank_response(scores)

    async def Entail(
        self, request: embedding_pb2.EntailRequest, context: Context
    ) -> embedding_pb2.EntailResponse:
        """Judges pairs of texts."""
        scores = await self._service().entail(
            request.premises,
            request.hypotheses,
            lane=wire.lane_from_proto(request.lane),
            timeout_s=time_left_s(context),
        )
        return wire.entail_response(scores)

    async def GetInfo(
        self, request: embedding_pb2.GetInfoRequest, context: Context
    ) -> embedding_pb2.GetInfoResponse:
        """Returns the models, their fingerprints and the live limits."""
        return wire.info_response(await self._service().info())


def registration(service: Callable[[], EmbeddingService]) -> Registration:
    """Returns what `nearline.serving.serve` needs to host the service."""

    def add(server: grpc.aio.Server) -> None:
        embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(
            EmbeddingServicer(service), server
        )

    return Registration(SERVICE_NAME, add)


def _dimensions(request: embedding_pb2.EmbedRequest) -> int | None:
    return request.dimensions if request.HasField("dimensions") else None

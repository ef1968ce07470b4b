"""A server that passes calls on, and a server behind it that answers what a test wants."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from nearline.access.caller_file import CallerFile
from nearline.forwarder import ForwardedService
from nearline.serving import Registration, running
from nearline.settings import ServerSettings
from nearline.v1 import (
    embedding_pb2,
    embedding_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    ingest_pb2,
    retrieval_pb2,
    retrieval_pb2_grpc,
)

# More blocks than connections hold while nobody reads.
MANY = 200
CROWD = 10
BLOCK = "x" * (1 << 18)
EMBEDDING, GENERATION, INGEST = (
    module.DESCRIPTOR.services_by_name[name]
    for module, name in (
        (embedding_pb2, "EmbeddingService"),
        (generation_pb2, "GenerationService"),
        (ingest_pb2, "IngestService"),
    )
)
OPTIONS = {EMBEDDING: "--embedding", GENERATION: "--generation", INGEST: "--ingest"}


class Behind(
    embedding_pb2_grpc.EmbeddingServiceServicer, generation_pb2_grpc.GenerationServiceServicer
):
    """Answers at once, or once it may.

    failure: What it raises after a reply, if any. metadata, left_s: Of the last call. began, go,
    cancelled: A call has begun, may end, has been cancelled. crowded: Ten calls run at once. many:
    A stream of replies was taken as a whole.
    """

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.metadata: dict[str, Any] = {}
        self.left_s: float | None = None
        self.began, self.go, self.cancelled = (asyncio.Event() for _ in range(3))
        self.crowded, self.many = asyncio.Event(), asyncio.Event()
        self.go.set()
        self.running = 0

    async def Embed(self, request: Any, context: Any) -> embedding_pb2.EmbedResponse:
        await self._begin(context)
        if self.failure is not None:
            raise self.failure
        return embedding_pb2.EmbedResponse(fingerprint=request.texts[0])

    async def EmbedStream(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        await self._begin(context)
        async for one in requests:
            reply = embedding_pb2.EmbedResponse(fingerprint=one.request.texts[0])
            yield embedding_pb2.EmbedStreamResponse(response=reply)
            if self.failure is not None:
                raise self.failure

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        await self._begin(context)
        for number in range(MANY):
            event = generation_pb2.DeltaEvent(text=f"{number} {BLOCK}")
            yield generation_pb2.GenerateResponse(delta=event)
        self.many.set()

    async def _begin(self, context: Any) -> None:
        self.metadata = dict(context.invocation_metadata() or ())
        self.left_s = context.time_remaining()
        context.set_trailing_metadata((("behind", "yes"),))
        self.began.set()
        self.running += 1
        if self.running == CROWD:
            self.crowded.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        finally:
            self.running -= 1

    @property
    def registrations(self) -> Sequence[Registration]:
        return [
            Registration(
                EMBEDDING.full_name,
                lambda server: embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(
                    self, server
                ),
            ),
            Registration(
                GENERATION.full_name,
                lambda server: generation_pb2_grpc.add_GenerationServiceServicer_to_server(
                    self, server
                ),
            ),
        ]


class Own(retrieval_pb2_grpc.RetrievalServiceServicer):
    """The service of the server that passes others' calls on."""

    async def Search(self, request: Any, context: Any) -> retrieval_pb2.SearchResponse:
        return retrieval_pb2.SearchResponse()


@contextlib.asynccontextmanager
async def front(
    behind: str,
    settings: ServerSettings | None = None,
    ingest: str = "",
    callers: CallerFile | None = None,
) -> AsyncIterator[str]:
    """Runs a server that passes calls on; yields its address.

    Args:
        behind: Address of the services of embedding and generation.
        settings: Its settings. Optional.
        ingest: Address of the document queue; empty for none.
        callers: Who may call. Optional; None lets everybody.
    """
    addresses = {EMBEDDING: behind, GENERATION: behind, INGEST: ingest}
    own = Registration(
        "nearline.v1.RetrievalService",
        lambda server: retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(Own(), server),
    )
    forwarded = [
        ForwardedService(service, address, OPTIONS[service])
        for service, address in addresses.items()
    ]
    async with running([own], settings=settings, forwarded=forwarded, callers=callers) as address:
        yield address

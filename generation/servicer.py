"""GenerationService over gRPC: messages to records and back, nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator

from nearline import contract as c
from nearline import wire
from nearline.contract import Generator
from nearline.guard import Context, time_left_s
from nearline.v1 import generation_pb2, generation_pb2_grpc


class GenerationServicer(generation_pb2_grpc.GenerationServiceServicer):
    """Answers for a generator.

    Args:
        generator: What answers.
    """

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    async def Generate(
        self, request: generation_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[generation_pb2.GenerateResponse]:
        """Answers a question."""
        events = self._generator.generate(
            wire.question_from_proto(request),
            collection=request.collection or c.DEFAULT_COLLECTION,
            timeout_s=time_left_s(context),
        )
        async for event in events:
            yield wire.event_to_proto(event)

    async def VerifyCitation(
        self, request: generation_pb2.VerifyCitationRequest, context: Context
    ) -> generation_pb2.VerifyCitationResponse:
        """Checks citations."""
        reply = await self._generator.verify(
            [wire.citation_from_proto(one) for one in request.citations],
            collection=request.collection or c.DEFAULT_COLLECTION,
            timeout_s=time_left_s(context),
        )
        return wire.verify_response(reply)

"""GenerationService over gRPC: converts messages to records and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from generation.service import GenerationService
from nearline import contract as c, wire
from nearline.access.method_guard import current_caller
from nearline.calls.guard import Context, time_left_s
from nearline.v1 import generation_pb2, generation_pb2_grpc


class GenerationServicer(generation_pb2_grpc.GenerationServiceServicer):
    """Serves a `GenerationService` over gRPC.

    Args:
        service: The service object.
    """

    def __init__(self, service: GenerationService) -> None:
        self._service = service

    async def Generate(
        self, request: generation_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[generation_pb2.GenerateResponse]:
        """Answers a question."""
        events = self._service.generate(
            wire.question_from_proto(request),
            collection=request.collection or c.DEFAULT_COLLECTION,
            timeout_s=time_left_s(context),
            caller=current_caller(),
        )
        # If the caller cancels, the work stops now, not when the generator is collected.
        async with aclosing(events):
            async for event in events:
                yield wire.event_to_proto(event)

    async def VerifyCitation(
        self, request: generation_pb2.VerifyCitationRequest, context: Context
    ) -> generation_pb2.VerifyCitationResponse:
        """Checks citations."""
        reply = await self._service.verify(
            wire.citations_from_proto(request.citations),
            collection=request.collection or c.DEFAULT_COLLECTION,
            min_watermark=request.min_watermark,
            timeout_s=time_left_s(context),
            caller=current_caller(),
        )
        return wire.verify_response(reply)

    async def GetSession(
        self, request: generation_pb2.GetSessionRequest, context: Context
    ) -> generation_pb2.GetSessionResponse:
        """Returns a stored conversation."""
        session = await self._service.session(
            request.session_id,
            collection=request.collection or c.DEFAULT_COLLECTION,
            timeout_s=time_left_s(context),
            caller=current_caller(),
        )
        return wire.session_to_proto(session)

    async def DeleteSession(
        self, request: generation_pb2.DeleteSessionRequest, context: Context
    ) -> generation_pb2.DeleteSessionResponse:
        """Deletes a conversation."""
        deleted = await self._service.delete_session(
            request.session_id,
            collection=request.collection or c.DEFAULT_COLLECTION,
            timeout_s=time_left_s(context),
            caller=current_caller(),
        )
        return generation_pb2.DeleteSessionResponse(deleted=deleted)

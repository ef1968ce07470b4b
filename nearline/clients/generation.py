"""Async client of the generation service."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import cast

import grpc

from nearline import contract as c, status, wire
from nearline.channel import ServiceChannel
from nearline.clients.arguments import converts_arguments
from nearline.tls import TlsFiles
from nearline.v1 import generation_pb2, generation_pb2_grpc

_ANSWER_TIMEOUT_S = 60.0


@converts_arguments
class GenerationClient(ServiceChannel):
    """Client of the generation service; a `Generator`.

    Args:
        address: "host:port" of the service.
        token, tls: See `ServiceChannel`.
    """

    def __init__(
        self, address: str, *, token: str | None = None, tls: TlsFiles | None = None
    ) -> None:
        super().__init__(address, token=token, tls=tls)
        self._stub = generation_pb2_grpc.GenerationServiceStub(self.grpc_channel)

    async def generate(
        self,
        question: c.Question | str,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[c.AnswerEvent, None]:
        """Answers a question; see `Generator.generate`.

        Leaving the loop early cancels the call. The timeout covers the whole answer; its default
        is 60 s.
        """
        request = wire.question_to_proto(cast(c.Question, question), collection)
        limit_s = _ANSWER_TIMEOUT_S if timeout_s is None else timeout_s
        call = self.begin(lambda: self._stub.Generate(request, timeout=limit_s))
        try:
            async for message in call:
                yield wire.event_from_proto(message)
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc_error(error, self.address) from error
        finally:
            call.cancel()

    async def verify(
        self,
        citations: Sequence[c.Citation],
        *,
        collection: str = c.DEFAULT_COLLECTION,
        min_watermark: bytes = b"",
        timeout_s: float | None = None,
    ) -> c.VerifyReply:
        """Checks 1..1024 citations; see `Generator.verify`."""
        request = generation_pb2.VerifyCitationRequest(
            collection=collection,
            citations=map(wire.citation_to_proto, citations),
            min_watermark=min_watermark,
        )
        return wire.verify_reply(await self.send(self._stub.VerifyCitation, request, timeout_s))

    async def session(
        self,
        session_id: str,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.Session:
        """Returns a stored conversation; see `Generator.session`."""
        request = generation_pb2.GetSessionRequest(collection=collection, session_id=session_id)
        return wire.session_from_proto(await self.send(self._stub.GetSession, request, timeout_s))

    async def delete_session(
        self,
        session_id: str,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> bool:
        """Deletes a conversation; see `Generator.delete_session`."""
        request = generation_pb2.DeleteSessionRequest(collection=collection, session_id=session_id)
        reply = await self.send(self._stub.DeleteSession, request, timeout_s)
        return reply.deleted

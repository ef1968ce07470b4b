"""Async client of the embedding service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from typing import Any, cast

import grpc

from nearline import contract as c, status, wire
from nearline.channel import ServiceChannel, send_requests
from nearline.clients.arguments import converts_arguments
from nearline.tls import TlsFiles
from nearline.v1 import embedding_pb2, embedding_pb2_grpc

# Batches of a stream that have no reply yet, at first and at most. If the service ends the stream
# while one is being sent, gRPC loses its error; most errors come with the first batch.
_FIRST_AHEAD, _MOST_AHEAD = 2, 16


@converts_arguments
class EmbeddingClient(ServiceChannel):
    """Client of the embedding service; an `Embedder`, a `Reranker` and an `Entailment`.

    Args:
        address: "host:port" of the service.
        token, tls: See `ServiceChannel`.
    """

    def __init__(
        self, address: str, *, token: str | None = None, tls: TlsFiles | None = None
    ) -> None:
        super().__init__(address, token=token, tls=tls)
        self._stub = embedding_pb2_grpc.EmbeddingServiceStub(self.grpc_channel)

    async def embed(
        self,
        texts: Sequence[str],
        role: c.TextRole | str = c.TextRole.DOCUMENT,
        *,
        dimensions: int | None = None,
        expected_fingerprint: str = "",
        lane: c.Lane | str = c.Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> c.Embeddings:
        """Embeds a batch of texts; see `Embedder.embed`. Default timeout: 10 s."""
        request = _embed_request(texts, role, dimensions, expected_fingerprint, lane)
        reply = await self.send(self._stub.Embed, request, timeout_s)
        return wire.embeddings(reply)

    async def embed_stream(
        self,
        batches: AsyncIterable[Sequence[str]],
        role: c.TextRole | str = c.TextRole.DOCUMENT,
        *,
        expected_fingerprint: str = "",
    ) -> AsyncGenerator[c.Embeddings, None]:
        """Embeds a stream of batches on the bulk lane; yields one result per batch, in order."""

        async def requests() -> AsyncIterator[embedding_pb2.EmbedStreamRequest]:
            async for texts in batches:
                request = _embed_request(texts, role, None, expected_fingerprint, c.Lane.BULK)
                yield embedding_pb2.EmbedStreamRequest(request=request)

        call = self.begin(self._stub.EmbedStream)
        ahead = _FIRST_AHEAD
        room = asyncio.Semaphore(ahead)
        sender = asyncio.create_task(send_requests(call, requests(), room))
        try:
            while True:
                reply: Any = await call.read()
                if reply is grpc.aio.EOF:
                    break
                room.release()
                if ahead < _MOST_AHEAD:
                    ahead += 1
                    room.release()
                yield wire.embeddings(reply.response)
            await sender
        except asyncio.CancelledError:
            if sender.done() and not sender.cancelled() and (failed := sender.exception()):
                # The batches could not be read, and the sender has cancelled the call.
                raise failed from None
            raise
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc_error(error, self.address) from error
        finally:
            sender.cancel()
            call.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def rerank(
        self,
        query: str,
        texts: Sequence[str],
        *,
        snapshot: str = "",
        lane: c.Lane | str = c.Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> Sequence[float]:
        """Scores texts against a query; see `Reranker.rerank`. Default timeout: 10 s."""
        request = embedding_pb2.RerankRequest(
            query=query, texts=texts, lane=wire.LANES[cast(c.Lane, lane)], snapshot=snapshot
        )
        reply = await self.send(self._stub.Rerank, request, timeout_s)
        return wire.rerank_scores(reply)

    async def entail(
        self,
        premises: Sequence[str],
        hypotheses: Sequence[str],
        *,
        lane: c.Lane | str = c.Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> c.EntailmentScores:
        """Judges pairs of texts; see `Entailment.entail`. Default timeout: 10 s."""
        request = embedding_pb2.EntailRequest(
            premises=premises, hypotheses=hypotheses, lane=wire.LANES[cast(c.Lane, lane)]
        )
        return wire.entailment_scores(await self.send(self._stub.Entail, request, timeout_s))

    async def info(self) -> c.EmbedderInfo:
        """Returns the embedder's card."""
        request = embedding_pb2.GetInfoRequest()
        return wire.embedder_info(await self.send(self._stub.GetInfo, request))


def _embed_request(
    texts: Sequence[str],
    role: c.TextRole | str,
    dimensions: int | None,
    expected_fingerprint: str,
    lane: c.Lane | str,
) -> embedding_pb2.EmbedRequest:
    return embedding_pb2.EmbedRequest(
        texts=texts,
        role=wire.ROLES[cast(c.TextRole, role)],
        dimensions=dimensions,
        expected_fingerprint=expected_fingerprint,
        lane=wire.LANES[cast(c.Lane, lane)],
    )

"""A stand-in for the embedding service that waits and returns random vectors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import grpc
import numpy as np

from nearline import wire
from nearline.contract import EmbedderInfo, Embeddings, Lane, TextRole
from nearline.serving import Context, Registration, running
from nearline.v1 import embedding_pb2, embedding_pb2_grpc

_DIM = 64
_INFO = EmbedderInfo(
    model="stand-in",
    fingerprint="stand-in",
    dim=_DIM,
    max_tokens=256,
    max_texts=1_024,
    max_characters=100_000,
    max_queued_tokens=1 << 20,
    backend="none",
    min_cosine=1.0,
    tokens_per_second=1e6,
)


class SlowEmbedder:
    """Returns a random unit vector for each text, as late as a model on another machine would.

    Args:
        seconds: Duration of a call; calls run concurrently.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._rng = np.random.default_rng(0)

    async def info(self) -> EmbedderInfo:
        """Returns the card."""
        return _INFO

    async def embed(
        self,
        texts: Sequence[str],
        role: TextRole = TextRole.DOCUMENT,
        *,
        dimensions: int | None = None,
        expected_fingerprint: str = "",
        lane: Lane = Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> Embeddings:
        """Waits, and draws vectors."""
        await asyncio.sleep(self._seconds)
        vectors = self._rng.standard_normal((len(texts), _DIM), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return Embeddings(
            vectors=vectors,
            fingerprint=_INFO.fingerprint,
            tokens=np.array([len(text.split()) for text in texts], np.int64),
            truncated=np.zeros(len(texts), np.bool_),
            inference_s=self._seconds,
        )


class _Servicer(embedding_pb2_grpc.EmbeddingServiceServicer):
    def __init__(self, embedder: SlowEmbedder) -> None:
        self._embedder = embedder

    async def Embed(
        self, request: embedding_pb2.EmbedRequest, context: Context
    ) -> embedding_pb2.EmbedResponse:
        return wire.embed_response(await self._embedder.embed(request.texts), request.dtype)

    async def GetInfo(
        self, request: embedding_pb2.GetInfoRequest, context: Context
    ) -> embedding_pb2.GetInfoResponse:
        return wire.info_response(await self._embedder.info())


@contextlib.asynccontextmanager
async def serve_slow_embedder(embedder: SlowEmbedder) -> AsyncIterator[str]:
    """Serves the stand-in inside this process for the duration of the block; yields the address."""

    def add(server: grpc.aio.Server) -> None:
        embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(_Servicer(embedder), server)

    async with running([Registration("nearline.v1.EmbeddingService", add)]) as address:
        yield address

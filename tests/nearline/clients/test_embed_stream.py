"""A stream of embeddings sends a few batches ahead of the replies, and then more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import numpy as np
import pytest

from nearline import vectors
from nearline.clients import EmbeddingClient
from nearline.v1 import embedding_pb2

REPLY = embedding_pb2.EmbedStreamResponse(
    response=embedding_pb2.EmbedResponse(vectors=vectors.pack(np.ones((1, 2), np.float32)))
)


class Call:
    """A call whose replies the test gives."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.replies: asyncio.Queue[object] = asyncio.Queue()
        self.cancelled = False

    async def write(self, message: embedding_pb2.EmbedStreamRequest) -> None:
        self.written += message.request.texts

    async def read(self) -> object:
        return await self.replies.get()

    async def done_writing(self) -> None:
        self.replies.put_nowait(grpc.aio.EOF)

    def cancel(self) -> None:
        self.cancelled = True


async def batches(count: int) -> AsyncIterator[list[str]]:
    for number in range(count):
        yield [str(number)]


async def test_a_stream_keeps_two_batches_in_flight_at_first_and_sixteen_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call = Call()
    async with EmbeddingClient("localhost:1") as client:
        monkeypatch.setattr(client, "begin", lambda make: call)
        stream = client.embed_stream(batches(100))
        for answered in range(30):
            reading = asyncio.ensure_future(anext(stream))
            # Turns of the loop in which all batches that may be sent are.
            for _ in range(50):
                await asyncio.sleep(0)
            assert len(call.written) == answered + min(2 + answered, 16)
            call.replies.put_nowait(REPLY)
            await reading
        assert call.written == [str(number) for number in range(len(call.written))]
        await stream.aclose()
        assert call.cancelled

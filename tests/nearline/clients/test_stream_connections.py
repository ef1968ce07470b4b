"""Streams, which may last for hours, keep no other call waiting; a closed client says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from nearline import contract as c
from nearline.clients import EmbeddingClient, GenerationClient, IngestClient, RetrievalClient
from nearline.errors import InvalidRequest, Unsupported
from nearline.serving import Registration, running
from nearline.settings import ServerSettings
from nearline.v1 import (
    embedding_pb2_grpc as embedding,
    generation_pb2_grpc as generation,
    ingest_pb2_grpc as ingest,
    retrieval_pb2_grpc as retrieval,
)


async def one_batch() -> AsyncIterator[Any]:
    yield []
    await asyncio.Event().wait()


async def first(replies: AsyncIterator[object]) -> None:
    async for _ in replies:
        pass


# By method: its client, a stream, and another call.
STREAMS: dict[str, tuple[type[Any], Callable[[Any], Awaitable[Any]], Callable[[Any], Any]]] = {
    "EmbedStream": (
        EmbeddingClient, lambda client: first(client.embed_stream(one_batch())),
        lambda client: client.info(),
    ),
    "UpsertItemsStream": (
        RetrievalClient, lambda client: client.upsert_batches(one_batch()),
        lambda client: client.get_user("ann"),
    ),
    "DeleteItemsStream": (
        RetrievalClient, lambda client: client.delete_batches(one_batch()),
        lambda client: client.get_user("ann"),
    ),
    "Generate": (
        GenerationClient, lambda client: first(client.generate(c.Question(text="why?"))),
        lambda client: client.session("s"),
    ),
    "WatchJob": (
        IngestClient, lambda client: first(client.watch("job")), lambda client: client.job("job")
    ),
}  # fmt: skip


@pytest.mark.parametrize("method", STREAMS)
async def test_an_open_stream_leaves_room_for_calls_until_the_client_is_closed(method: str) -> None:
    kind, stream, other_call = STREAMS[method]
    begun = asyncio.Event()

    async def reply(self: object, request: object, context: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def replies(self: object, request: object, context: object) -> AsyncIterator[None]:
        await reply(self, request, context)
        yield

    def register(server: Any) -> None:
        for module, service in (
            (embedding, "Embedding"),
            (generation, "Generation"),
            (ingest, "Ingest"),
            (retrieval, "Retrieval"),
        ):
            base = getattr(module, f"{service}ServiceServicer")
            handler = reply if method.endswith("ItemsStream") else replies
            servicer = type(service, (base,), {method: handler})()
            getattr(module, f"add_{service}ServiceServicer_to_server")(servicer, server)

    settings = ServerSettings(max_streams=1)
    async with (
        running([Registration("all", register)], settings=settings) as address,
        kind(address) as client,
    ):
        opened = asyncio.ensure_future(stream(client))
        await asyncio.wait_for(begun.wait(), 10)
        # It is answered, while the stream occupies its connection.
        with pytest.raises(Unsupported):
            await asyncio.wait_for(other_call(client), 10)
        assert not opened.done()
        opened.cancel()
        await asyncio.gather(opened, return_exceptions=True)
        await client.close()
        for call in (stream, other_call):
            with pytest.raises(InvalidRequest, match="is closed; make another one"):
                await asyncio.wait_for(call(client), 10)

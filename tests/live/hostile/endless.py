"""Connections and streams that begin and never end."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import grpc

from nearline.v1 import embedding_pb2 as e, retrieval_pb2 as r
from tests.live.hostile.common_cases import HEALTH

EACH = 10
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# What a client of something else sends, or one that stops in the middle.
_BEGUN = (
    b"",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    _PREFACE[:10],
    _PREFACE + b"\xff" * 1_000,
    # Headers that go on in a frame that never comes.
    _PREFACE + b"\0\0\0\x04\0\0\0\0\0" + b"\0\0\x01\x01\0\0\0\0\x01\x82",
)
_STREAMS = {
    "RetrievalService": ("UpsertItemsStream", r.UpsertItemsStreamRequest()),
    "EmbeddingService": (
        "EmbedStream",
        e.EmbedStreamRequest(request=e.EmbedRequest(texts=["x"])),
    ),
}


@contextlib.asynccontextmanager
async def endless_connections(address: str, services: tuple[str, ...]) -> AsyncIterator[None]:
    """Holds connections, health watches and streams to a server open for the length of the block.

    services: Those of the server, "RetrievalService".
    """
    host, _, port = address.rpartition(":")
    async with contextlib.AsyncExitStack() as stack:
        for data in _BEGUN * EACH:
            connection = stack.enter_context(socket.create_connection((host, int(port))))
            connection.sendall(data)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        watch: Any = channel.unary_stream(HEALTH.replace("Check", "Watch"))
        calls = [watch(b"") for _ in range(EACH)]
        for call in calls:
            stack.callback(call.cancel)
            await call.read()
        for service in services:
            if service in _STREAMS:
                name, request = _STREAMS[service]
                stream: Any = channel.stream_stream(f"/nearline.v1.{service}/{name}")
                for _ in range(EACH):
                    call = stream()
                    stack.callback(call.cancel)
                    if service == "EmbeddingService":
                        await call.write(request.SerializeToString())
                        await call.read()
                    else:
                        await call.wait_for_connection()
        yield

"""Streams that outlast the key of their caller."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from nearline import serving
from nearline.access.rights import Right
from nearline.channel import ServiceChannel
from nearline.settings import ServerSettings
from nearline.v1 import embedding_pb2, embedding_pb2_grpc, ingest_pb2, ingest_pb2_grpc
from nearline_cli.local.key_store import KeyStore

pytestmark = pytest.mark.service


class Watched(ingest_pb2_grpc.IngestServiceServicer):
    """A job that never changes."""

    ended = False

    async def WatchJob(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            yield ingest_pb2.WatchJobResponse()
            await asyncio.Event().wait()
        finally:
            self.ended = True


class Embedding(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Waits for requests."""

    async def EmbedStream(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        yield embedding_pb2.EmbedStreamResponse()
        async for _ in requests:
            pass


async def test_streams_end_within_two_seconds_of_the_revocation_of_their_key(
    tmp_path: Path,
) -> None:
    store = KeyStore(tmp_path / "keys.toml")
    key, key_id = store.create("shop", {"*": Right.READ})
    other, _ = store.create("shop", {"*": Right.READ})
    watched = Watched()
    hosted = [
        serving.Registration(
            "nearline.v1.IngestService",
            lambda server: ingest_pb2_grpc.add_IngestServiceServicer_to_server(watched, server),
        ),
        serving.Registration(
            "nearline.v1.EmbeddingService",
            lambda server: embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(
                Embedding(), server
            ),
        ),
    ]
    settings = ServerSettings(keys=str(tmp_path / "keys.toml"))
    async with (
        serving.running(hosted, settings=settings) as address,
        ServiceChannel(address, token=key) as channel,
        ServiceChannel(address, token=other) as valid,
    ):
        calls: list[Any] = []
        for one in (channel, valid):
            connection: Any = one.grpc_channel
            calls.append(
                ingest_pb2_grpc.IngestServiceStub(connection).WatchJob(
                    ingest_pb2.WatchJobRequest(job_id="a"), timeout=60
                )
            )
            calls.append(
                embedding_pb2_grpc.EmbeddingServiceStub(connection).EmbedStream(timeout=60)
            )
        for call in calls:
            assert await call.read() is not grpc.aio.EOF
        store.revoke(key_id)
        start = time.monotonic()
        codes = await asyncio.wait_for(asyncio.gather(*(one.code() for one in calls[:2])), 20)
        assert time.monotonic() - start < 3  # Two, and one for a busy machine.
        assert [one.name for one in codes] == ["UNAUTHENTICATED"] * 2
        assert watched.ended
        assert not any(one.done() for one in calls[2:])
        for call in calls[2:]:
            call.cancel()

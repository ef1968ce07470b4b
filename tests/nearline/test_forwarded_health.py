"""Health and reflection of services that are reached through another: what they say themselves."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from nearline import forwarder
from nearline.clients import EmbeddingClient
from nearline.serving import running
from nearline.settings import ServerSettings
from nearline.v1 import embedding_pb2, embedding_pb2_grpc
from nearline_cli.local.processes import free_port
from tests.nearline.doors import EMBEDDING, INGEST, Behind, front

pytestmark = pytest.mark.service
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def health_is(address: str, service: str, wanted: int) -> None:
    """Waits for a health of a service."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=service)
        async for reply in stub.Watch(request, timeout=20):
            if reply.status == wanted:
                assert (await stub.Check(request)).status == wanted
                return


async def test_the_health_of_a_service_is_what_it_says_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forwarder, "_HEALTH_EVERY_S", 0.05)
    settings = ServerSettings(port=free_port(), grace_s=60.0)
    async with front(f"127.0.0.1:{settings.port}") as address:
        # The server itself is well without it.
        await health_is(address, EMBEDDING.full_name, NOT_SERVING)
        await health_is(address, "", SERVING)
        async with running(Behind().registrations, settings=settings):
            await health_is(address, EMBEDDING.full_name, SERVING)
        # It has stopped at once: nothing that watches its health has kept it.
        await health_is(address, EMBEDDING.full_name, NOT_SERVING)


async def test_the_first_call_reaches_a_service_that_started_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forwarder, "_HEALTH_EVERY_S", 0.02)
    settings = ServerSettings(port=free_port())
    polled = asyncio.Event()
    async with front(f"127.0.0.1:{settings.port}") as address:
        # So many polls in vain that the next attempt to connect is seconds away.
        asyncio.get_running_loop().call_later(1.5, polled.set)
        await polled.wait()
        async with (
            running(Behind().registrations, settings=settings),
            EmbeddingClient(address) as client,
        ):
            stub = embedding_pb2_grpc.EmbeddingServiceStub(client.grpc_channel)
            reply = await stub.Embed(embedding_pb2.EmbedRequest(texts=["a"]))
            assert reply.fingerprint == "a"


async def test_reflection_describes_the_services_behind() -> None:
    async with front("127.0.0.1:1") as address:

        def described() -> tuple[set[str], set[str]]:
            with grpc.insecure_channel(address) as channel:
                database = ProtoReflectionDescriptorDatabase(channel)
                service = DescriptorPool(database).FindServiceByName(EMBEDDING.full_name)
                return set(database.get_services()), {one.name for one in service.methods}

        services, methods = await asyncio.to_thread(described)
    assert EMBEDDING.full_name in services
    assert methods == {one.name for one in EMBEDDING.methods}
    # Of one that has no address, nothing is said.
    assert INGEST.full_name not in services

"""A client of one name shares its calls among the servers behind it, and finds new ones."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable

from nearline.calls.guard import Context
from nearline.clients import EmbeddingClient
from nearline.serving import Registration, running
from nearline.settings import ServerSettings
from nearline.v1 import embedding_pb2, embedding_pb2_grpc
from nearline_cli.local.processes import free_port
from tests.dns_server import name_server


class _Server(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Says at which address it is."""

    def __init__(self, host: str) -> None:
        self.host = host

    async def GetInfo(
        self, request: embedding_pb2.GetInfoRequest, context: Context
    ) -> embedding_pb2.GetInfoResponse:
        return embedding_pb2.GetInfoResponse(model=self.host, dim=1)

    def add(self, server: object) -> None:
        embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(self, server)  # type: ignore[arg-type]


def _serving(
    host: str, port: int, connection_age_s: float
) -> contextlib.AbstractAsyncContextManager[str]:
    settings = ServerSettings(host=host, port=port, connection_age_s=connection_age_s)
    registration = Registration("nearline.v1.EmbeddingService", _Server(host).add)
    return running([registration], settings=settings)


async def _until(
    client: EmbeddingClient, reached: Callable[[Counter[str]], bool], limit_s: float = 20.0
) -> Counter[str]:
    """Calls in rounds of twenty, until one is as wanted; returns that round. No call may fail."""
    ends = time.monotonic() + limit_s
    while True:
        seen = Counter([(await client.info()).model for _ in range(20)])
        if reached(seen):
            return seen
        assert time.monotonic() < ends, seen
        await asyncio.sleep(0.02)


async def test_servers_behind_one_name_take_turns_and_a_new_one_is_found() -> None:
    port = free_port()
    one, two, three = "127.0.0.1", "127.0.0.2", "127.0.0.3"
    async with (
        _serving(one, port, 1.0),
        _serving(two, port, 1.0),
        _serving(three, port, 1.0),
        name_server([one, two]) as names,
        EmbeddingClient(f"dns://{names.address}/embedding:{port}") as client,
    ):
        # In a round in which the client connects again, one may have a turn more.
        await _until(client, lambda seen: seen == {one: 10, two: 10})
        names.addresses = [one, two, three]
        await _until(client, lambda seen: set(seen) == {one, two, three})
        names.addresses = [three]
        assert await _until(client, lambda seen: len(seen) == 1) == {three: 20}


async def test_a_client_that_is_never_asked_to_connect_again_knows_its_first_servers() -> None:
    # Why the setting exists: if gRPC ever looks for new servers itself, it may go.
    port = free_port()
    async with (
        _serving("127.0.0.1", port, 0.0),
        _serving("127.0.0.2", port, 0.0),
        name_server(["127.0.0.1"]) as names,
        EmbeddingClient(f"dns://{names.address}/embedding:{port}") as client,
    ):
        await client.info()
        names.addresses = ["127.0.0.1", "127.0.0.2"]
        ends = time.monotonic() + 3.0
        while time.monotonic() < ends:
            assert await _until(client, lambda seen: True) == {"127.0.0.1": 20}

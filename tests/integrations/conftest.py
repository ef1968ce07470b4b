"""Services over an empty store, for tests of frameworks and of clients of other systems."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple
from uuid import uuid4

import pytest

from nearline import Client
from nearline.clients.blocking_calls import client_loop
from nearline_cli.local.processes import (
    EMBEDDING_SERVICES,
    GENERATION_SERVICES,
    INGEST_SERVICES,
    RETRIEVAL_SERVICES,
    ServiceProcess,
    start_service,
)
from tests.redis_server import valkey


class _Services(NamedTuple):
    """Addresses of the router, the embedding service and Redis."""

    router: str
    embedding: str
    redis: str


async def _start(
    stack: contextlib.AsyncExitStack, module: str, *words: str, ready: tuple[str, ...] = ()
) -> ServiceProcess:
    """Starts a service on a free port; the stack stops it."""
    service = await start_service(module, (*words, "--port", "0"), ready_services=ready)
    stack.push_async_callback(service.stop)
    return service


@pytest.fixture(scope="session", name="services")
def give_services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Services]:
    """Runs a router and an embedding service: `tests.live.word_embedding`."""
    store = tmp_path_factory.mktemp("integrations") / "store"
    stack = contextlib.AsyncExitStack()

    async def start() -> _Services:
        redis = await stack.enter_async_context(valkey())
        embedding = await _start(
            stack, "tests.live.word_embedding", "--reranker", "lengths", ready=EMBEDDING_SERVICES
        )
        words = ["--store", str(store), "--redis", redis, "--embedding", embedding.address]
        words += ["--allow-empty", "--alias-poll-s", "0.1"]
        router = await _start(stack, "retrieval", *words, ready=RETRIEVAL_SERVICES)
        return _Services(router.address, embedding.address, redis)

    try:
        yield client_loop.run(start())
    finally:
        client_loop.run(stack.aclose())


@pytest.fixture(scope="session", name="address")
def give_address(services: _Services) -> str:
    """Returns the address of the router."""
    return services.router


@pytest.fixture(scope="session", name="gateway")
def give_gateway(services: _Services) -> Iterator[str]:
    """Returns the URL of a gateway in front of every service."""
    stack = contextlib.AsyncExitStack()
    behind = ("--retrieval", services.router, "--embedding", services.embedding)

    async def start() -> str:
        generation = await _start(
            stack, "generation", *behind, "--redis", services.redis, ready=GENERATION_SERVICES
        )
        queue = ("--redis", services.redis, "--retrieval", services.router)
        ingest = await _start(stack, "index_builder.ingest", *queue, ready=INGEST_SERVICES)
        behind_own = (*behind, "--generation", generation.address, "--ingest", ingest.address)
        own = await _start(stack, "gateway", *behind_own)
        return f"http://{own.address}"

    try:
        yield client_loop.run(start())
    finally:
        client_loop.run(stack.aclose())


@pytest.fixture(scope="session", name="client")
def give_client(address: str) -> Iterator[Client]:
    """Returns a client of the router."""
    with Client(address) as client:
        yield client


@pytest.fixture(name="collection")
def give_collection() -> str:
    """Returns the name of a collection that is not there yet."""
    return f"c{uuid4().hex[:12]}"

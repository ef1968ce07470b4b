"""A router over an empty store, with an embedding service; what frameworks are tested against."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from uuid import uuid4

import pytest

from nearline import Client
from nearline.clients.blocking_calls import client_loop
from nearline_cli.local.processes import EMBEDDING_SERVICES, RETRIEVAL_SERVICES, start_service
from tests.redis_server import valkey


@pytest.fixture(scope="session", name="address")
def give_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Returns the address of the router; its embedder knows the words w0 to w99."""
    store = tmp_path_factory.mktemp("integrations") / "store"
    stack = contextlib.AsyncExitStack()

    async def start() -> str:
        redis = await stack.enter_async_context(valkey())
        embedding = await start_service(
            "tests.live.word_embedding", ("--port", "0"), ready_services=EMBEDDING_SERVICES
        )
        stack.push_async_callback(embedding.stop)
        words = ["--store", str(store), "--redis", redis, "--embedding", embedding.address]
        words += ["--allow-empty", "--alias-poll-s", "0.1", "--port", "0"]
        router = await start_service("retrieval", words, ready_services=RETRIEVAL_SERVICES)
        stack.push_async_callback(router.stop)
        return router.address

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

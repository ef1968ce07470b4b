"""Two routers over one empty store, in which collections come and go."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from nearline import contract as c
from nearline.clients import AdminClient, RetrievalClient
from nearline_cli.local.processes import (
    RETRIEVAL_SERVICES,
    ingest_process,
    start_service,
)
from retrieval.redis_client.connection import connect
from tests.redis_server import valkey

DIM = 8


@dataclass
class Running:
    """A router over an empty store, and another one that follows it; both with a Redis."""

    store: Path
    redis_url: str
    addresses: list[str]
    admin: AdminClient
    client: RetrievalClient
    other: RetrievalClient

    async def keys(self) -> list[str]:
        """Returns all keys but those of the queue, whose jobs are history."""
        redis = connect(self.redis_url)
        try:
            raw: Any = await redis.keys("*")
            found = sorted(key.decode() for key in raw)
            return [key for key in found if not key.startswith("nl:{ingest}")]
        finally:
            await redis.aclose()

    def files(self, collection: str) -> list[str]:
        folder = self.store / collection
        return sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file())

    async def fill(self, collection: str, prefix: str, rows: int = 20) -> c.WriteReply:
        vectors = np.random.default_rng(len(prefix)).normal(size=(rows, DIM)).astype(np.float32)
        items = [
            c.Item(id=f"{prefix}{row}", text=f"lamp {row}", vector=vector, attributes={"n": row})
            for row, vector in enumerate(vectors)
        ]
        reply = await self.client.upsert_items(items, collection=collection)
        event = c.Interaction(item_id=f"{prefix}1", user_id="ann")
        await self.client.record_interactions([event], collection=collection)
        return reply


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="running")
async def give_running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    store = tmp_path_factory.mktemp("collections") / "store"
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(valkey())
        queue = await stack.enter_async_context(ingest_process(url))
        words = [*("--store", str(store), "--redis", url, "--ingest", queue.address)]
        words += ["--allow-empty", "--alias-poll-s", "0.1"]
        addresses = []
        for _ in range(2):
            process = await start_service(
                "retrieval", (*words, "--port", "0"), ready_services=RETRIEVAL_SERVICES
            )
            stack.push_async_callback(process.stop)
            addresses.append(process.address)
        clients = [
            await stack.enter_async_context(RetrievalClient(address)) for address in addresses
        ]
        admin = await stack.enter_async_context(AdminClient(addresses[0]))
        yield Running(store, url, addresses, admin, *clients)

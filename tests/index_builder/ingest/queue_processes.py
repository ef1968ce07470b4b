"""A queue as processes: Redis, embedding, a router with two collections, service and worker."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from nearline import Item
from nearline_cli.local.processes import (
    EMBEDDING_SERVICES,
    ingest_process,
    retrieval_process,
    service_process,
    worker_process,
)
from tests.index_builder.embedders import HashEmbedder
from tests.index_builder.ingest.web_server import web_server
from tests.redis_server import valkey

DIM = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueProcesses:
    """Addresses of the processes. Collection "default" takes vectors, "texts" embeds texts.

    files: The folder whose files workers may read.
    web: A web server whose /in/ workers may read.
    """

    redis: str
    retrieval: str
    ingest: str
    files: Path
    web: str


@contextlib.asynccontextmanager
async def _queue(folder: Path, web: str) -> AsyncIterator[QueueProcesses]:
    # Imported late: every collected test imports this module.
    from index_builder.options.build_options import BuildOptions
    from index_builder.pipeline.builder import build_snapshot

    store, files = folder / "store", folder / "files"
    files.mkdir()
    vectors = np.eye(DIM, dtype=np.float32)
    items = [Item(id=f"d{i}", text=f"text {i}", vector=vectors[i]) for i in range(DIM)]
    await build_snapshot(items, BuildOptions(store=str(store)))
    texts = [Item(id=f"t{i}", text=f"text {i}") for i in range(DIM)]
    options = BuildOptions(store=str(store), collection="texts", golden_queries=0)
    await build_snapshot(texts, options, HashEmbedder())
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        redis = await enter(valkey())
        embedding = await enter(
            service_process(
                "tests.index_builder.ingest.hash_embedding", ready_services=EMBEDDING_SERVICES
            )
        )
        retrieval = await enter(
            retrieval_process(store, ["--redis", redis], embedding=embedding.address)
        )
        words = ["--attempts", "2", "--backoff-s", "0.05", "--poll-s", "0.1"]
        words += ["--sources", f"{files.as_uri()}/,{web}/in/"]
        ingest = await enter(ingest_process(redis, ["--retrieval", retrieval.address]))
        await enter(worker_process(redis, retrieval.address, words))
        yield QueueProcesses(
            redis=redis,
            retrieval=retrieval.address,
            ingest=ingest.address,
            files=files,
            web=web,
        )


@pytest.fixture(scope="session")
def queue_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueueProcesses]:
    """Returns a queue shared by all tests, each with tenants and jobs of its own."""
    # In an event loop of its own, which reads the processes' output while tests run theirs.
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="queue")
    thread.start()
    try:
        with web_server() as web:
            running = _queue(tmp_path_factory.mktemp("queue"), web)
            there = asyncio.run_coroutine_threadsafe(running.__aenter__(), loop).result()
            yield there
            asyncio.run_coroutine_threadsafe(running.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

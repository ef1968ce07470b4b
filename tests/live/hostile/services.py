"""Every service as a process, started once for all cases, with its memory measured."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import contract as c
from nearline.clients import (
    EmbeddingClient,
    GenerationClient,
    IngestClient,
    RetrievalClient,
)
from nearline_cli.local.processes import (
    GENERATION_SERVICES,
    SHARD_SERVICES,
    ServiceProcess,
    embedding_process,
    ingest_process,
    retrieval_process,
    service_process,
    worker_process,
)
from tests.live.hostile.known import DIM, Known
from tests.redis_server import valkey

_ITEMS = 40
_PAGE = 5


@dataclass(frozen=True, slots=True)
class Server:
    """A process, the services that it has, and a request that it answers."""

    process: ServiceProcess
    services: tuple[str, ...]
    good: Callable[[], Awaitable[object]]

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.process.address

    @property
    def memory(self) -> Memory:
        """Its memory now."""
        return memory_of(self.process.pid)


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a process in bytes. now: Resident. most: Resident at most since `forget_most`."""

    now: int
    most: int

    def __str__(self) -> str:
        return f"{self.now >> 20} MiB (at most {self.most >> 20})"


def memory_of(pid: int) -> Memory:
    """Returns the memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {line.partition(":")[0]: line.split()[1] for line in lines if line.startswith("Vm")}
    return Memory(int(found["VmRSS"]) << 10, int(found["VmHWM"]) << 10)


def forget_most(pid: int) -> None:
    """Makes the kernel measure the most memory of a process from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@dataclass(frozen=True, slots=True)
class Services:
    """All servers by name, and what is known about them.

    files: The folder whose files workers may read. web: A web server whose /in/ they may read.
    redis: Address of Redis.
    """

    servers: dict[str, Server]
    known: Known
    files: Path
    web: str
    redis: str


async def _build(store: Path, embedding: EmbeddingClient) -> None:
    vectors = np.random.default_rng(1).normal(size=(_ITEMS, DIM)).astype(np.float32)
    items = [
        c.Item(
            id=f"d{number}",
            text=f"text {number}",
            vector=vectors[number],
            attributes={
                "kind": "abc"[number % 3],
                "year": 2000 + number,
                "price": number / 2,
                "new": number % 2 == 0,
                "seen": datetime(2020, 1, 1 + number % 28, tzinfo=UTC),
                "tags": ["x", "y"][: number % 3],
            },
        )
        for number in range(_ITEMS)
    ]
    await build_snapshot(items, BuildOptions(store=str(store), lexical=False))
    texts = [c.Item(id=f"t{number}", text=f"This is text {number}.") for number in range(10)]
    options = BuildOptions(store=str(store), collection="texts", golden_queries=0)
    await build_snapshot(texts, options, embedding)


async def _known(client: RetrievalClient, embedding: EmbeddingClient) -> Known:
    item = c.Item(id="d0", text="text", vector=np.ones(DIM, np.float32))
    watermark = (await client.upsert_items([item])).watermark
    text = c.Item(id="t0", text="This is text 0.")
    other = (await client.upsert_items([text], collection="texts")).watermark
    # Loads pyarrow, whose memory stays.
    await client.import_interactions(_one_row(), import_id="first")
    page = await client.list_items(page_size=_PAGE)
    others = await client.list_items(page_size=_PAGE, collection="texts")
    return Known(
        page.info.snapshot_id, page.next_page_token, watermark, others.next_page_token, other
    )


async def _one_row() -> AsyncIterator[c.InteractionColumns]:
    yield c.InteractionColumns(["u"], ["d0"], [0])


@contextlib.asynccontextmanager
async def running(folder: Path, web: str) -> AsyncIterator[Services]:
    """Runs Redis, and every service, for the length of the block.

    web: A web server whose /in/ workers may read.
    """
    store, files = folder / "store", folder / "files"
    files.mkdir()
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        redis, embedding = await asyncio.gather(enter(valkey()), enter(embedding_process()))
        embedder = await enter(EmbeddingClient(embedding.address))
        await _build(store, embedder)
        common = ("--redis", redis, "--embedding", embedding.address)
        shard, ingest = await asyncio.gather(
            enter(
                service_process(
                    "retrieval.shard_server",
                    ("--store", str(store), *common),
                    ready_services=SHARD_SERVICES,
                )
            ),
            enter(ingest_process(redis)),
        )
        router = await enter(
            retrieval_process(store, (*common, "--shards", f"0={shard.address}", "--drain-s", "0"))
        )
        words = ("--attempts", "2", "--backoff-s", "0.05", "--parse-s", "60", "--batch", "8")
        sources = f"{files.as_uri()}/,{web}/in/"
        generation, worker = await asyncio.gather(
            enter(
                service_process(
                    "generation",
                    ("--retrieval", router.address, *common, "--drain-s", "0"),
                    ready_services=GENERATION_SERVICES,
                )
            ),
            enter(worker_process(redis, router.address, (*words, "--sources", sources))),
        )
        client = await enter(RetrievalClient(router.address))
        shards = await enter(RetrievalClient(router.address))
        answers = await enter(GenerationClient(generation.address))
        queue = await enter(IngestClient(ingest.address))
        query = c.Query(vector=np.ones(DIM, np.float32))

        async def answered() -> None:
            question = c.Question(text="What is text 1?", refuse=False)
            events = [one async for one in answers.generate(question, collection="texts")]
            assert isinstance(events[-1], c.Done)

        servers = {
            "embedding": Server(
                embedding, ("EmbeddingService",), lambda: embedder.embed(["a text"])
            ),
            "shard": Server(shard, ("ShardService",), lambda: shards.search(query)),
            "router": Server(
                router, ("RetrievalService", "AdminService"), lambda: client.search(query)
            ),
            "generation": Server(generation, ("GenerationService",), answered),
            "ingest": Server(ingest, ("IngestService",), queue.queue),
            "worker": Server(worker, (), queue.queue),
        }
        known = await _known(client, embedder)
        yield Services(servers, known, files, web, redis.removeprefix("redis://").partition("/")[0])

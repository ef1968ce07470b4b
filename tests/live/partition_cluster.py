"""A router, and its shards, Redis and embedding service, each on a cable that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from index_builder.options.build_options import BuildOptions
from index_builder.options.training_options import TrainingOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import contract as c
from nearline.clients import EmbeddingClient, RetrievalClient
from nearline_cli.local.bundled_redis import command, find_program
from nearline_cli.local.processes import (
    EMBEDDING_SERVICES,
    RETRIEVAL_SERVICES,
    SHARD_SERVICES,
    ServiceProcess,
    start_service,
)
from retrieval.redis_client.connection import REDIS_FAILURES, connect
from tests.index_builder.behaviour.circular_walks import documents, walks
from tests.live.cut_network import Peer, peer

_PORT = 7000
_START_S = 60.0


@dataclass(slots=True)
class Part:
    """A process in a network of its own."""

    peer: Peer
    pid: int = 0

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"{self.peer.address}:{_PORT}"

    def partition(self) -> None:
        """Cuts its cable."""
        self.peer.cut()

    def halt(self) -> None:
        """Leaves its connections open, on which it says nothing any more."""
        os.kill(self.pid, signal.SIGSTOP)

    def restore(self) -> None:
        """Ends both."""
        os.kill(self.pid, signal.SIGCONT)
        self.peer.connect()


@dataclass(slots=True)
class Cluster:
    """parts: "redis", "embedding", "shard 0", and so on. items: Those of the snapshot."""

    parts: Mapping[str, Part]
    items: Sequence[c.Item]
    client: RetrievalClient = field(repr=False)


@contextlib.asynccontextmanager
async def cluster(folder: Path, shards: int) -> AsyncIterator[Cluster]:
    """Runs all of it for the length of the block."""
    names = ["redis", "embedding", *(f"shard {number}" for number in range(shards))]
    async with contextlib.AsyncExitStack() as stack:
        parts = {
            name: Part(stack.enter_context(peer(number)))
            for number, name in enumerate(names, start=1)
        }

        async def start(part: Part | None, words: Sequence[str], ready: Sequence[str]) -> str:
            module, arguments = words[0], words[1:]
            if part is not None:
                where = ("--host", part.peer.address, "--port", str(_PORT), "--insecure")
                module, *arguments = part.peer.joining(
                    [sys.executable, "-P", "-m", module, *arguments, *where]
                )
            started = await start_service(
                module, arguments, ready_services=ready, ready_timeout_s=_START_S
            )
            stack.push_async_callback(_stop, started)
            if part is not None:
                part.pid = started.pid
            return started.address

        embedding = parts["embedding"]
        await asyncio.gather(
            _start_redis(parts["redis"], folder / "redis", stack),
            start(embedding, ["tests.live.word_embedding"], EMBEDDING_SERVICES),
        )
        items = await _build(folder / "store", shards, embedding.address)
        common = ("--store", str(folder / "store"), "--redis", f"redis://{parts['redis'].address}")
        topology = ";".join(f"{n}={parts[f'shard {n}'].address}" for n in range(shards))
        words = ["retrieval", *common, "--embedding", embedding.address, "--shards", topology]
        router, *_ = await asyncio.gather(
            start(None, [*words, "--drain-s", "0"], RETRIEVAL_SERVICES),
            *(
                start(
                    parts[f"shard {number}"],
                    ["retrieval.shard_server", *common, "--shard", str(number)],
                    SHARD_SERVICES,
                )
                for number in range(shards)
            ),
        )
        client = await stack.enter_async_context(RetrievalClient(router))
        yield Cluster(parts, items, client)


async def _build(store: Path, shards: int, embedding: str) -> list[c.Item]:
    items = [
        c.Item(id=name, title=name, text=f"w{number} w{number + 20}")
        for number, name in enumerate(documents())
    ]
    options = BuildOptions(
        store=str(store), shards=shards, training=TrainingOptions(interactions=walks())
    )
    async with EmbeddingClient(embedding) as embedder:
        await build_snapshot(items, options, embedder)
    return items


async def _start_redis(part: Part, folder: Path, stack: contextlib.AsyncExitStack) -> None:
    folder.mkdir()
    words = [*command(find_program(), folder, _PORT), "--bind", "*", "--protected-mode", "no"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *part.peer.joining(words)), stdout=asyncio.subprocess.DEVNULL
    )

    async def stop() -> None:
        process.kill()
        await process.wait()

    stack.push_async_callback(stop)
    part.pid = process.pid
    client = connect(f"redis://{part.address}")
    async with client, asyncio.timeout(_START_S):
        while True:
            with contextlib.suppress(*REDIS_FAILURES):
                await client.ping()
                return
            await asyncio.sleep(0.02)


async def _stop(process: ServiceProcess) -> None:
    await process.stop(10.0)

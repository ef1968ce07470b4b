"""A queue whose disk and Redis can be full, and whose processes disagree about the time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nearline import Item, RetrievalClient, contract as c
from nearline.clients import IngestClient
from nearline.errors import DeadlineExceeded, NotReady, Overloaded
from nearline_cli.local.processes import (
    INGEST_MODULE,
    INGEST_SERVICES,
    RETRIEVAL_SERVICES,
    WORKER_MODULE,
    free_port,
)
from retrieval.redis_client.connection import connect
from tests.live.world import Part
from tests.small_disk import SmallDisk

DIM = 8
SHIFT_S = 600
# Above what `nearline status` calls full.
DISK_MIB = 160
_PASSING = (NotReady, DeadlineExceeded, Overloaded)
_PATIENCE_S = 60.0
_numbers = itertools.count()


def vector_items(count: int) -> list[Item]:
    """Returns items that no earlier call has returned."""
    vector = np.eye(DIM, dtype=np.float32)[0]
    return [Item(id=f"d{next(_numbers)}", text="text", vector=vector) for _ in range(count)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliveries:
    """A Redis, a queue, and two workers, each with a router of its own.

    folder: Has the data of Redis and the store. disk: Its disk; None: it has none of its own.
    port: That of the first router; the others are where `nearline up` has them. web: A web server
    whose /in/ the workers may read. services: The processes of the routers.
    """

    folder: Path
    disk: SmallDisk | None
    port: int
    web: str
    redis: Part
    services: Sequence[Part]
    routers: Sequence[RetrievalClient]
    queue: IngestClient

    @property
    def redis_url(self) -> str:
        """Returns the URL of Redis."""
        return f"redis://127.0.0.1:{self.port + 4}/0"

    async def deliver(self, items: Sequence[Item]) -> str:
        """Submits items as a job until that is acknowledged; returns the id of the job."""
        job_id = c.new_job_id()
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                with contextlib.suppress(*_PASSING):
                    return (await self.queue.submit(items, job_id=job_id)).job_id
                await asyncio.sleep(0.05)

    async def deliver_into_hands(self, items: Sequence[Item]) -> str:
        """Submits items that the workers take, but no router writes until something is full."""
        self._signal_routers(signal.SIGSTOP)
        job_id = await self.deliver(items)
        async with asyncio.timeout(_PATIENCE_S):
            while not (await self.queue.queue()).in_hand:
                await asyncio.sleep(0.02)
        return job_id

    def _signal_routers(self, number: signal.Signals) -> None:
        for one in self.services:
            assert one.running is not None
            one.running.process.send_signal(number)

    async def ended(self, job_id: str) -> c.Job:
        """Returns a job once it has ended, whatever happens to the queue meanwhile."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                with contextlib.suppress(*_PASSING):
                    async for job in self.queue.watch(job_id, timeout_s=_PATIENCE_S):
                        last = job
                    return last
                await asyncio.sleep(0.05)

    async def check_delivered(self, job_id: str, items: Sequence[Item]) -> None:
        """Checks that a job has no dead letter, and that every router serves its items."""
        job = await self.ended(job_id)
        found = (job.state, job.indexed, job.dead, job.left)
        assert found == (c.JobState.SUCCEEDED, len(items), 0, 0)
        await self.check_served(items, job.watermark)

    async def check_served(self, items: Sequence[Item], watermark: bytes) -> None:
        """Checks that every router serves items."""
        for router in self.routers:
            reply = await router.get_items(
                [item.id for item in items], min_watermark=watermark, timeout_s=30.0
            )
            assert {item.id for item in reply.items} == {item.id for item in items}

    @contextlib.asynccontextmanager
    async def full_redis(self) -> AsyncIterator[None]:
        """Lets Redis refuse writes for the length of the block."""
        async with connect(self.redis_url) as client:
            await client.config_set("maxmemory", "1mb")
            self._signal_routers(signal.SIGCONT)
            try:
                yield
            finally:
                await client.config_set("maxmemory", "512mb")

    @contextlib.asynccontextmanager
    async def full_disk(self) -> AsyncIterator[None]:
        """Leaves no space on the disk for the length of the block."""
        assert self.disk is not None
        try:
            with self.disk.full():
                self._signal_routers(signal.SIGCONT)
                yield
        finally:
            # It ends when it cannot write, and `nearline up` starts it again.
            running = self.redis.running
            if running is not None and running.process.returncode is not None:
                await self.redis.kill()
                await self.redis.settled()


@contextlib.asynccontextmanager
async def deliveries(folder: Path, disk: SmallDisk | None, web: str) -> AsyncIterator[Deliveries]:
    """Runs the processes for the length of the block.

    The routers, the workers and the service are ten minutes ahead of Redis or behind it.
    """
    from index_builder.options.build_options import BuildOptions
    from index_builder.pipeline.builder import build_snapshot

    store, port = folder / "store", _free_ports()
    await build_snapshot(vector_items(1), BuildOptions(store=str(store)))
    redis_words = ("--folder", str(folder / "redis"), "--port", str(port + 4))
    redis = Part("nearline_cli.local.redis_process", redis_words, ())
    use_redis = ("--redis", f"redis://127.0.0.1:{port + 4}/0")
    ports = (port, free_port())
    routers, workers = [], []
    for shift_s, own in zip((SHIFT_S, -SHIFT_S), ports, strict=True):
        router = ("--store", str(store), "--port", str(own))
        routers.append(_shifted(shift_s, "retrieval", (*use_redis, *router), RETRIEVAL_SERVICES))
        # One failure would make a dead letter.
        tries = ("--attempts", "1", "--fetch-s", "0.3", "--sources", f"{web}/in/")
        pace = ("--poll-s", "0.05", "--lease-s", "2", "--batch", "8")
        worker = ("--retrieval", f"127.0.0.1:{own}", *tries, *pace)
        workers.append(_shifted(-shift_s, WORKER_MODULE, (*use_redis, *worker), ("",)))
    door = (*use_redis, "--port", str(port + 5))
    service = _shifted(SHIFT_S, INGEST_MODULE, door, INGEST_SERVICES)
    started = (*routers, service, *workers)
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(RetrievalClient(f"127.0.0.1:{own}")) for own in ports
        ]
        queue = await stack.enter_async_context(IngestClient(f"127.0.0.1:{port + 5}"))
        try:
            await redis.start()
            await asyncio.gather(*(one.start() for one in started))
            yield Deliveries(
                folder=folder,
                disk=disk,
                port=port,
                web=web,
                redis=redis,
                services=routers,
                routers=clients,
                queue=queue,
            )
        finally:
            await asyncio.gather(*(one.stop() for one in started))
            await redis.stop()


def _shifted(shift_s: int, module: str, words: Sequence[str], services: Sequence[str]) -> Part:
    return Part("tests.shifted_clock", (str(shift_s), module, *words), services)


def _free_ports() -> int:
    """Returns a free port whose successors, where Redis and the queue belong, are free as well."""
    while True:
        port = free_port()
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            for offset in (4, 5):
                probe = held.enter_context(socket.socket())
                probe.bind(("127.0.0.1", port + offset))
            return port

"""Real processes that can be killed: a Valkey, shard servers, a router; they come back at once.

Their disk and their Redis can be full for a while, and their clocks ahead or behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError

from nearline.clients import AdminClient, RetrievalClient
from nearline.errors import DeadlineExceeded, NearlineError, NotReady, Overloaded, SnapshotGone
from nearline_cli.local.processes import (
    RETRIEVAL_SERVICES,
    SHARD_SERVICES,
    ServiceProcess,
    free_port,
    start_service,
)
from retrieval.redis_client.connection import connect
from tests.small_disk import SmallDisk

_R = TypeVar("_R")
PATIENCE_S = 60.0
# What a caller may see while something is down, and tries again.
PASSING = (NotReady, DeadlineExceeded, Overloaded, SnapshotGone)


@dataclass(slots=True)
class Part:
    """One process of the world: how it is started, and what runs now."""

    module: str
    arguments: Sequence[str]
    services: Sequence[str]
    running: ServiceProcess | None = None
    starting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts it, and waits until it serves."""
        self.running = await start_service(
            self.module, self.arguments, ready_services=self.services, ready_timeout_s=PATIENCE_S
        )

    async def kill(self) -> None:
        """Kills it without a warning and starts it again; does not wait until it serves."""
        await self.settled()
        assert self.running is not None
        with contextlib.suppress(ProcessLookupError):
            self.running.process.send_signal(signal.SIGKILL)
        await self.running.stop(1.0)
        self.running = None
        self.starting = asyncio.ensure_future(self.start())

    async def settled(self) -> None:
        """Waits for a start that is under way."""
        if self.starting is not None:
            await self.starting
            self.starting = None

    async def stop(self) -> None:
        """Ends it for good."""
        with contextlib.suppress(NearlineError):
            await self.settled()
        if self.running is not None:
            await self.running.stop(10.0)


@dataclass(slots=True)
class World:
    """The processes over one store.

    shards: By number, the replicas. disk: Holds the store and the data of Redis; None if they are
    on a disk that others use.
    """

    store: Path
    redis_url: str
    redis: Part
    shards: Sequence[Sequence[Part]]
    router: Part
    address: str
    client: RetrievalClient = field(repr=False)
    admin: AdminClient = field(repr=False)
    disk: SmallDisk | None = None

    @property
    def parts(self) -> list[Part]:
        """All of them, in the order of their start."""
        return [self.redis, *(part for copies in self.shards for part in copies), self.router]

    async def patiently(self, call: Callable[[], Awaitable[_R]]) -> _R:
        """Makes a call until it is answered, as a caller with a retry loop does."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + PATIENCE_S
        while True:
            try:
                return await call()
            except PASSING as error:
                if loop.time() > give_up:
                    raise AssertionError(
                        f"{error!r} for {PATIENCE_S:g} s\n{self.logs()}"
                    ) from error
                await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def full_disk(self) -> AsyncIterator[None]:
        """Leaves no space on the disk for the length of the block."""
        assert self.disk is not None
        with self.disk.full():
            yield
        client = connect(self.redis_url, timeout_s=10.0)
        try:
            await client.ping()
        except RedisConnectionError:
            # It ends when it cannot write, and `nearline up` starts it again.
            await self.redis.kill()
        finally:
            await client.aclose()

    @contextlib.asynccontextmanager
    async def full_redis(self) -> AsyncIterator[None]:
        """Lets Redis refuse writes, as at its limit of memory, for the length of the block."""
        await self.redis.settled()
        client = connect(self.redis_url, timeout_s=10.0)
        try:
            limit = str((await client.config_get("maxmemory"))["maxmemory"])
            await client.config_set("maxmemory", "1mb")
            yield
            await client.config_set("maxmemory", limit)
        finally:
            await client.aclose()

    def logs(self) -> str:
        """Returns the last words of every process."""
        said = []
        for part in self.parts:
            lines = list(part.running.log)[-15:] if part.running is not None else ["(not running)"]
            said += [f"--- {part.module} {' '.join(part.arguments)}", *lines]
        return "\n".join(said)


@contextlib.asynccontextmanager
async def world(
    folder: Path,
    *,
    shards: int = 2,
    replicas: int = 2,
    router: Sequence[str] = (),
    disk: SmallDisk | None = None,
    shifts_s: Sequence[float] = (0.0,),
) -> AsyncIterator[World]:
    """Runs a world for the length of the block; the store needs a published collection by then.

    Args:
        folder: Holds store/ and redis/.
        router: More arguments of the router.
        disk: The disk that holds the folder.
        shifts_s: How far the clocks of the shard servers and the router are ahead of the clock of
            Redis, in turn.
    """
    store, port = folder / "store", free_port()
    redis_url = f"redis://127.0.0.1:{port}/0"
    redis_words = ("--folder", str(folder / "redis"), "--port", str(port))
    redis = Part("nearline_cli.local.redis_process", redis_words, ())
    common = (*("--store", str(store), "--redis", redis_url), *("--alias-poll-s", "0.2"))
    clocks = itertools.cycle(shifts_s)

    def make_part(module: str, arguments: Sequence[str], services: Sequence[str]) -> Part:
        if shift_s := next(clocks):
            module, arguments = "tests.shifted_clock", (str(shift_s), module, *arguments)
        return Part(module, arguments, services)

    copies = [
        [
            make_part(
                "retrieval.shard_server",
                (*common, "--shard", str(number), "--port", str(free_port())),
                SHARD_SERVICES,
            )
            for _ in range(replicas)
        ]
        for number in range(shards)
    ]
    topology = ";".join(
        f"{number}={','.join(f'127.0.0.1:{part.arguments[-1]}' for part in parts)}"
        for number, parts in enumerate(copies)
    )
    own = free_port()
    arguments = (*common, "--shards", topology, "--port", str(own), "--drain-s", "0", *router)
    front = make_part("retrieval", arguments, RETRIEVAL_SERVICES)
    address = f"127.0.0.1:{own}"
    async with RetrievalClient(address) as client, AdminClient(address) as admin:
        made = World(store, redis_url, redis, copies, front, address, client, admin, disk)
        try:
            await redis.start()
            await asyncio.gather(*(part.start() for parts in copies for part in parts))
            await front.start()
            yield made
        finally:
            for part in reversed(made.parts):
                await part.stop()

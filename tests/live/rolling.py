"""A router over snapshots of a few thousand items, and callers who look at what they get."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import contract as c
from nearline.clients import AdminClient, RetrievalClient
from nearline.errors import NearlineError
from nearline.store.snapshot import Store
from nearline.v1 import admin_pb2
from nearline_cli.local.processes import retrieval_process

DIM = 32
K = 10
# A busy machine answers fewer calls, and should not be asked to do more than it can.
AT_ONCE = 8
QUICK = ("--alias-poll-s", "0.2", "--snapshot-drain-s", "0.5", "--drain-s", "0")


async def built(
    store: Path, stamp: str, vectors: NDArray[np.float32], options: BuildOptions
) -> str:
    """Builds a snapshot whose texts all begin with a stamp; gives its id."""
    items = [
        c.Item(id=f"d{row:06d}", text=f"{stamp} document {row}", vector=vector)
        for row, vector in enumerate(vectors)
    ]
    return (await build_snapshot(items, options)).snapshot_id


@dataclass(slots=True)
class Callers:
    """Asks at a rate, each time for somebody else; counts what was wrong.

    stamps: What the texts of a snapshot begin with, by its id. arms: Answers by arm. mixed: Answers
    that were not wholly of the snapshot that they name.
    """

    client: RetrievalClient
    queries: NDArray[np.float32]
    stamps: dict[str, str]
    arms: Counter[c.Arm | None] = field(default_factory=Counter)
    snapshots: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    mixed: int = 0
    asked: int = 0
    mode: c.SearchMode = c.SearchMode.DENSE

    async def ask(self, unit: str) -> c.SearchReply | None:
        """Asks once."""
        query = c.Query(vector=self.queries[self.asked % len(self.queries)])
        if self.mode is c.SearchMode.LEXICAL:
            query = c.Query(text="document")
        self.asked += 1
        options = c.SearchOptions(
            k=K, mode=self.mode, payload=frozenset({c.PayloadField.TEXT}), unit=unit
        )
        try:
            reply = await self.client.search(query, options, timeout_s=10.0)
        except NearlineError as error:
            self.failed[f"{type(error).__name__}: {error.message[:200]}"] += 1
            return None
        self.arms[reply.info.arm] += 1
        self.snapshots[reply.info.snapshot_id] += 1
        found = {(hit.text or "").partition(" ")[0] for hit in reply.hits}
        self.mixed += found != {self.stamps[reply.info.snapshot_id]}
        return reply

    async def until(
        self, done: Callable[[], bool], *, rate: float = 200.0, most_s: float = 60.0
    ) -> None:
        """Asks until something is so.

        rate: Calls per second, fewer where `AT_ONCE` of them still wait for their answers.

        Raises: AssertionError: it is not so in time.
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        places = asyncio.Semaphore(AT_ONCE)
        number = 0
        async with asyncio.TaskGroup() as running:
            while not done():
                if loop.time() > start + most_s:
                    raise AssertionError(f"not after {most_s:g} s: {self}")
                await asyncio.sleep(start + number / rate - loop.time())
                await places.acquire()
                asking = running.create_task(self.ask(f"user-{number}"))
                asking.add_done_callback(lambda _: places.release())
                number += 1


class Watch:
    """Looks at the rollout of a router again and again."""

    def __init__(self, admin: AdminClient) -> None:
        self._admin = admin
        self.status = admin_pb2.GetRolloutStatusResponse()

    async def keep_looking(self) -> None:
        """Looks ten times a second."""
        while True:
            self.status = await self._admin.rollout_status()
            await asyncio.sleep(0.1)


@dataclass(slots=True)
class Rolling:
    """A router, somebody who watches it, and callers."""

    store: Store
    admin: AdminClient
    watch: Watch
    callers: Callers

    def tried(self) -> bool:
        """Whether a canary answers."""
        return self.watch.status.running

    def ended(self) -> bool:
        """Whether no canary is named, and none answers."""
        status = self.watch.status
        return bool(status.in_force.epoch) and not status.in_force.canary and not status.running


@contextlib.asynccontextmanager
async def rolling(
    store: Path,
    queries: NDArray[np.float32],
    stamps: dict[str, str],
    *,
    arguments: Sequence[str] = (),
    embedding: str = "",
) -> AsyncIterator[Rolling]:
    """Runs a router over a store for the length of the block."""
    async with (
        retrieval_process(store, [*QUICK, *arguments], embedding=embedding) as router,
        RetrievalClient(router.address) as client,
        AdminClient(router.address) as admin,
    ):
        watch = Watch(admin)
        looking = asyncio.create_task(watch.keep_looking())
        try:
            yield Rolling(Store(store), admin, watch, Callers(client, queries, stamps))
        finally:
            looking.cancel()

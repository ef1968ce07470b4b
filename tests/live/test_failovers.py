"""Snapshots contain every acknowledged change, whatever failovers happened before they were built.

HISTORIES=200 python -m pytest tests/live/test_failovers.py  runs as many as that; HISTORIES_SEED=N
begins with another one. Archiving, compaction, trims and restarts of upkeep are in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
from collections import Counter
from itertools import count, islice
from pathlib import Path
from typing import ClassVar, cast

import pytest

from nearline.errors import NearlineError, NotReady
from nearline.store.snapshot import partition_of
from nearline_cli.local.bundled_redis import HOST
from nearline_cli.local.processes import free_port
from retrieval.changelog.archive import archive_changes
from retrieval.changelog.registry import ChangeLogs
from retrieval.changelog.retention import trim_log
from retrieval.redis_client.durability import Durability
from tests.index_builder.live_collection import Living
from tests.local_cluster import ClusterProcess
from tests.redis_server import needs_redis
from tests.retrieval.changelog.memory_log import MemoryLog
from tests.scale import NIGHTLY, scaled

pytestmark = [pytest.mark.service, pytest.mark.long, needs_redis]
HISTORIES = int(os.environ.get("HISTORIES", str(scaled(6, nightly=60))))
SEED = int(os.environ.get("HISTORIES_SEED", secrets.randbelow(1 << 31) if NIGHTLY else 20261202))
WAIT_S = 0.3
OPTIONS = {
    "cluster-enabled": "no",
    "repl-diskless-sync-delay": "0",
    # A confirmation that waits for the second's end would make a history ten times as long.
    "appendfsync": "always",
}
# Of one partition, whose numbers a failover gives away twice.
IDS = tuple(islice((one for one in map(str, count()) if partition_of(one) == 7), 6))
ACTIONS = {
    "write": 12,
    "archive": 4,
    "compact": 2,
    "trim": 1,
    "cut": 2,
    "heal": 3,
    "promote": 2,
    "kill": 1,
    "restart_upkeep": 2,
}


class Collection(Living):
    """A collection whose log is in the Redis that is primary."""

    def make_log(self, follows: str = "") -> None:
        """Does nothing: the first write makes the log."""


class FailoverHistory:
    """A primary and a replica, a collection, and what its documents may be.

    A write needs the replica. So a replica that is cut off, or not, has what was acknowledged, and
    may take over at any time but during its first copy.

    Args:
        servers: The primary, then the replica.
        folder: Empty folder.
        rng: Draws what happens.
    """

    done: ClassVar[Counter[str]] = Counter()

    def __init__(self, servers: list[ClusterProcess], folder: Path, rng: random.Random) -> None:
        self.servers, self.rng = servers, rng
        self.collection = Collection(folder)
        self.logs: ChangeLogs | None = None
        self.is_cut = False
        # By id, what it may be now; None: not there. What was acknowledged replaces the others.
        self.may_be: dict[str, set[str | None]] = {one: {None} for one in IDS}
        self.steps: list[str] = []

    @property
    def primary(self) -> ClusterProcess:
        """The server that clients write to."""
        return self.servers[0]

    @property
    def replica(self) -> ClusterProcess:
        """The other one."""
        return self.servers[1]

    async def run(self, steps: int) -> None:
        """Lets this many things happen, then builds a snapshot, and checks it."""
        for one in self.servers:
            await one.ask("REPLICAOF", "NO", "ONE")
        await self.primary.ask("FLUSHALL")
        await self.heal()
        await self.collection.create_empty()
        await self.restart_upkeep()
        # A snapshot has at least one document. On a busy machine, the replica may take longer.
        async with asyncio.timeout(30):
            while not await self.is_acknowledged("always", "there"):
                pass
        names, weights = list(ACTIONS), list(ACTIONS.values())
        for _ in range(steps):
            name = self.rng.choices(names, weights)[0]
            self.steps.append(name)
            self.done[name] += 1
            await getattr(self, name)()
        await self.heal()
        await self.restart_upkeep()
        await self.compact(surely=True)
        assert self.logs is not None
        await self.logs.close()

    async def write(self) -> None:
        """Writes or deletes a document, and notes whether that was acknowledged."""
        document_id = self.rng.choice(IDS)
        text = f"text {len(self.steps)}" if self.rng.random() < 0.75 else None
        self.steps[-1] += f" {document_id} {text}"
        if await self.is_acknowledged(document_id, text):
            self.may_be[document_id] = {text}
            self.done["acknowledged"] += 1
        else:
            self.steps[-1] += " refused"
            self.may_be[document_id].add(text)

    async def is_acknowledged(self, document_id: str, text: str | None) -> bool:
        """Writes a document, or deletes it if it has no text; returns whether Redis has it."""
        try:
            if text is None:
                await self.collection.delete(document_id)
            else:
                await self.collection.upsert(document_id, text)
        except NotReady:
            return False
        return True

    async def archive(self) -> None:
        """Does what upkeep does each minute."""
        with contextlib.suppress(NotReady):
            await archive_changes(self.collection.store, self.collection.log)

    async def trim(self) -> None:
        """Removes from the log what snapshots contain."""
        with contextlib.suppress(NotReady):
            await trim_log(self.collection.store, self.collection.log)

    async def compact(self, *, surely: bool = False) -> None:
        """Builds a snapshot, and checks what is in it."""
        try:
            await self.collection.compact()
        except NotReady:
            assert not surely
            return
        self.done["snapshots"] += 1
        if self.is_cut:
            return  # It has what is archived; the rest is in the log, and follows.
        texts = self.collection.texts()
        wrong = {one: texts.get(one) for one in IDS if texts.get(one) not in self.may_be[one]}
        assert not wrong, (wrong, self.may_be, self.steps)

    async def cut(self) -> None:
        """Cuts the link of the replica."""
        await self.replica.ask("REPLICAOF", HOST, free_port())
        self.is_cut = True

    async def heal(self) -> None:
        """Lets the replica follow the primary, and waits until it has everything."""
        await self.replica.ask("REPLICAOF", HOST, self.primary.port)
        async with asyncio.timeout(30):
            while (await self.replica.ask("ROLE"))[3] != b"connected" or (
                await self.primary.ask("ROLE")
            )[1] != (await self.replica.ask("ROLE"))[4]:
                await asyncio.sleep(0.01)
        self.is_cut = False

    async def promote(self) -> None:
        """Makes the replica primary; the former primary stays as it is until it is healed."""
        await self.replica.ask("REPLICAOF", "NO", "ONE")
        self.servers.reverse()
        self.is_cut = True
        await self.restart_upkeep()

    async def kill(self) -> None:
        """Kills the primary, and lets the replica take over."""
        await self.primary.kill()
        await self.promote()
        await self.replica.start()

    async def restart_upkeep(self) -> None:
        """Forgets what was read of the log."""
        if self.logs is not None:
            await self.logs.close()
        url = f"redis://{HOST}:{self.primary.port}/0"
        self.logs = ChangeLogs(self.collection.store, url, who="a test", replicas=1)
        self.collection.log = cast(MemoryLog, self.logs.log("default"))


@pytest.mark.timeout(60 + 30 * HISTORIES)
async def test_snapshots_have_what_was_acknowledged_after_any_history_of_failovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So long does a write wait for a replica that is cut off.
    monkeypatch.setattr(Durability.__init__, "__defaults__", (None, WAIT_S))
    servers = [ClusterProcess(tmp_path / name, OPTIONS) for name in ("one", "other")]
    try:
        for one in servers:
            await one.start()
        for number in range(SEED, SEED + HISTORIES):
            rng = random.Random(number)
            history = FailoverHistory(servers, tmp_path / f"history {number}", rng)
            try:
                await history.run(rng.randint(8, 30))
            except (AssertionError, NearlineError) as error:
                error.add_note(f"HISTORIES_SEED={number} HISTORIES=1: {history.steps}")
                raise
            FailoverHistory.done["histories"] += 1
    finally:
        print(f"failovers from HISTORIES_SEED={SEED}: {dict(FailoverHistory.done)}")
        for one in servers:
            await one.close()

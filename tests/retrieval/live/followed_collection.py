"""A store with a snapshot, a log in memory, and shards that follow it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nearline.contract import PayloadField, WriteOutcome
from nearline.internal.v1 import change_pb2
from nearline.store.snapshot import Store, partition_of
from nearline.v1 import snapshot_pb2
from retrieval.changelog.change_log import ChangeLog
from retrieval.changelog.records import Change, ChangeKind, ChangeWrite
from retrieval.embedders.endpoints import Embedders
from retrieval.live.live_changes import LiveChanges
from retrieval.live.progress import ShardProgress
from retrieval.protocols.shard import ItemsRequest, ScanRequest
from retrieval.protocols.snapshot import SnapshotRef, read_snapshot_ref
from retrieval.protocols.watermark import AppliedState, Watermark
from retrieval.shards.local_provider import LocalShardProvider
from retrieval.shards.local_shard import LocalShard
from tests.retrieval.changelog.memory_log import MemoryLog
from tests.retrieval.small_snapshots import FINGERPRINT, Document, write_snapshot

SHARDS = 2
DIM = 4
IDS = tuple(f"d{number}" for number in range(6))
OLD = dict.fromkeys(IDS, "old")


class Followed:
    """A collection of six documents in two shards, with its shard provider.

    Args:
        root: Where the store lies.
        named: Whether the store names the log already.
        logs: Where the process reads logs; True: the one in memory, False: it was told of none.
    """

    def __init__(
        self,
        root: Path,
        *,
        named: bool = True,
        logs: Callable[[str], ChangeLog] | bool = True,
        allow_stale: bool = False,
        embedders: Embedders | None = None,
    ) -> None:
        self.root, self.store = root, Store(root)
        self.log = MemoryLog()
        if named:
            self.name_log()
        given = self.reader if logs is True else logs or None
        self.live = LiveChanges(
            self.store,
            given,
            embedders=embedders,
            allow_stale=allow_stale,
        )
        self.hosting = LocalShardProvider(self.store, 1, live=self.live)
        self.snapshot = self.make()
        self.shards: Sequence[LocalShard] = ()

    def reader(self, collection: str) -> MemoryLog:
        """Returns the log, like `ChangeLogs.reader`."""
        return self.log

    def name_log(self, follows: str = "") -> None:
        """Records this log in the store."""
        number = 1 + len(list(self.store.log_records("default")))
        record = change_pb2.LogRecord(number=number, log_id=self.log.log_id, follows=follows)
        self.store.create_log_record("default", record)
        self.store.mark_log_ready("default", number)

    def make(self, watermark: Watermark | None = None) -> SnapshotRef:
        """Builds a snapshot of the old texts that contains the log up to a position."""
        rows = np.eye(DIM, dtype=np.float32)
        documents = [Document(id=one, vectors=rows[:1], text="old", bounds=[(0, 3)]) for one in IDS]
        made = write_snapshot(self.root, documents, shards=SHARDS)
        snapshot = read_snapshot_ref(self.store, "default", made, 1)
        if watermark is not None:
            manifest = snapshot_pb2.Manifest()
            manifest.CopyFrom(snapshot.manifest)
            manifest.change_log_id = watermark.log_id
            manifest.watermark = watermark.encode()
            snapshot = SnapshotRef(collection="default", epoch=1, manifest=manifest)
        return snapshot

    async def load(self) -> None:
        """Loads the snapshot; returns when it is ready."""
        self.shards = await self.hosting.prepare(self.snapshot)

    async def write(self, *changes: Change) -> Watermark:
        """Appends changes."""
        writes = [
            ChangeWrite(change, base_version=0 if change.document_id in IDS else None)
            for change in changes
        ]
        appended = await self.log.append(writes)
        assert all(one.outcome is not WriteOutcome.REJECTED for one in appended.results)
        return appended.watermark

    async def texts(
        self, least: Watermark | None = None, deadline: float | None = None
    ) -> dict[str, str]:
        """Returns the texts of all served documents by id."""
        found = [
            await shard.scan(
                self.snapshot.snapshot_id,
                ScanRequest("", 1_000, None, frozenset({PayloadField.TEXT}), least),
                deadline,
            )
            for shard in self.shards
        ]
        return {item.id: item.text for each in found for item in each.items}

    async def applied(self) -> list[AppliedState | None]:
        """Returns the applied state of each shard."""
        payload: frozenset[PayloadField] = frozenset()
        return [
            (await shard.fetch(self.snapshot.snapshot_id, ItemsRequest(["d0"], payload))).applied
            for shard in self.shards
        ]

    async def vectors(self, *ids: str) -> list[NDArray[np.float32]]:
        """Returns the vectors of documents."""
        found = {}
        for shard in self.shards:
            fetched = await shard.fetch(
                self.snapshot.snapshot_id, ItemsRequest(ids, frozenset({PayloadField.VECTOR}))
            )
            found.update({item.id: item.vector for item in fetched.items})
        return [vector for one in ids if (vector := found[one]) is not None]

    def progress(self) -> Mapping[int, ShardProgress]:
        """Returns the progress of the shards."""
        return self.live.progress("default", self.snapshot.snapshot_id)

    async def stale(self) -> str:
        """Returns why the first shard is stale."""
        applied = (await self.applied())[0]
        return applied.stale if applied else ""

    async def close(self) -> None:
        """Releases everything."""
        await self.hosting.close()


def upsert(
    document_id: str,
    text: str = "new",
    fingerprint: str = FINGERPRINT,
    expires: datetime | None = None,
) -> Change:
    """Returns a change that adds or replaces an item of one chunk."""
    return Change(
        document_id=document_id,
        kind=ChangeKind.UPSERT,
        text=text,
        bounds=np.array([[0, len(text)]]),
        vectors={fingerprint: np.eye(DIM, dtype=np.float32)[:1]},
        expires=expires,
    )


def delete(document_id: str) -> Change:
    """Returns a change that deletes an item."""
    return Change(document_id=document_id, kind=ChangeKind.DELETE)


def in_partition(partition: int, count: int) -> list[str]:
    """Returns new ids of one partition."""
    ids = (f"n{number}" for number in range(100_000))
    found = [one for one in ids if partition_of(one) == partition]
    return found[:count]


async def until_texts(one: Followed, wanted: dict[str, str]) -> None:
    async with asyncio.timeout(10):
        while await one.texts() != wanted:
            await asyncio.sleep(0.005)


async def until_stale(one: Followed, wanted: str) -> None:
    """Waits until the stale reason contains these words; "" waits until there is none."""
    async with asyncio.timeout(10):
        while True:
            stale = await one.stale()
            if (wanted in stale) if wanted else not stale:
                return
            await asyncio.sleep(0.005)


Open = Callable[..., Followed]

"""A Milvus collection under live changes, with a change log in memory."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Attributes
from nearline.v1 import snapshot_pb2
from retrieval.changelog.records import Change, ChangeEntry, ChangeKind, ChangeWrite
from retrieval.index.lexical.text_analysis import Analyser
from retrieval.live.delta_protocol import FollowedDelta
from retrieval.milvus.change_merge import ChangeMerger
from retrieval.milvus.client import MilvusClient
from retrieval.milvus.collection_state import CollectionState, CollectionStates
from retrieval.milvus.delta import follow_snapshot
from retrieval.milvus.live_collection import LiveCollection
from retrieval.milvus.reader import ReadContext
from retrieval.milvus.rows import make_rows, parse_attributes
from retrieval.milvus.schema import Bm25
from retrieval.protocols.watermark import Watermark
from retrieval.redis_client.lease import Lease
from tests.retrieval.changelog.memory_log import MemoryLog
from tests.retrieval.live.followed_collection import in_partition

FINGERPRINT = "model"
DIM = 4
KINDS = {"year": "int", "price": "double", "tags": "string", "made": "time"}
ANALYSER = Analyser("none")
_numbers = itertools.count()


class Document(NamedTuple):
    """State of a document. vector: First number of the vector of each chunk."""

    title: str
    text: str
    attributes: Attributes
    version: int
    vector: Sequence[float]


class Killed(Exception):
    """The writing process died here."""


class Lock:
    """A lock without Redis. holder: The lease that holds it."""

    def __init__(self) -> None:
        self.holder: HeldLease | None = None

    def lease(self, started_us: int) -> HeldLease:
        """Returns a lease of the lock."""
        return HeldLease(self)


class HeldLease:
    """A `Lease` of a `Lock`."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self.term = 0
        self.short = False

    @property
    def remaining_s(self) -> float:
        held = self._lock.holder is self
        return (1.0 if self.short else 60.0) if held else 0.0

    async def acquire(self) -> bool:
        if self._lock.holder is None:
            self._lock.holder = self
            self.term += 1
        return self._lock.holder is self

    async def release(self) -> None:
        if self._lock.holder is self:
            self._lock.holder = None


class DyingClient(MilvusClient):
    """A client whose process ends at one of its next writes.

    writes_left: After so many; None: it lives. carried_out: The last one is carried out, too.
    """

    writes_left: int | None = None
    carried_out = False

    async def upsert(
        self, name: str, rows: Sequence[Mapping[str, Any]], *, timeout_s: float | None = None
    ) -> int:
        if self._ends():
            if self.carried_out:
                await super().upsert(name, rows, timeout_s=timeout_s)
            raise Killed
        return await super().upsert(name, rows, timeout_s=timeout_s)

    async def delete(self, name: str, expression: str, *, timeout_s: float | None = None) -> int:
        if self._ends():
            if self.carried_out:
                await super().delete(name, expression, timeout_s=timeout_s)
            raise Killed
        return await super().delete(name, expression, timeout_s=timeout_s)

    def _ends(self) -> bool:
        if self.writes_left is None:
            return False
        self.writes_left -= 1
        return self.writes_left < 0


class SuspendedClient(MilvusClient):
    """A client whose process is suspended between the decision to write and the write.

    Args:
        uri: Address of the server.
        at: Number of the write or takeover, from 0.
    """

    def __init__(self, uri: str, at: int) -> None:
        super().__init__(uri)
        self.reached, self.resumed = asyncio.Event(), asyncio.Event()
        self._left = at
        for name in ("take_over", "insert", "upsert", "delete"):
            setattr(self, name, partial(self._pass, getattr(self, name)))

    async def _pass(
        self, call: Callable[..., Awaitable[object]], *args: object, **options: object
    ) -> object:
        self._left -= 1
        if self._left == -1:
            self.reached.set()
            await self.resumed.wait()
        return await call(*args, **options)

    async def until_reached(self, writing: asyncio.Task[Any]) -> None:
        """Waits until a task is suspended."""
        reached = asyncio.create_task(self.reached.wait())
        await asyncio.wait((writing, reached), return_when=asyncio.FIRST_COMPLETED)
        assert reached.done(), writing


@asynccontextmanager
async def suspended(uri: str, at: int) -> AsyncIterator[SuspendedClient]:
    """Yields a client that stops at a write."""
    client = SuspendedClient(uri, at)
    try:
        yield client
    finally:
        await client.close()


class Living:
    """A snapshot in Milvus that has live changes.

    Args:
        client: The Milvus.
        name: The collection of it.
        words: It has the words of chunks.
    """

    def __init__(self, client: DyingClient, name: str, *, words: bool) -> None:
        self.client = client
        self.name = name
        self.words = words
        self.log = MemoryLog()
        self.lock = Lock()
        self.states = CollectionStates(client)
        self.logs: list[str] = [self.log.log_id]
        self.made: list[LiveCollection] = []
        self.context = ReadContext()

    async def collection(self, client: MilvusClient | None = None) -> LiveCollection:
        """Returns the collection as another process sees it."""
        state = await self.states.read(self.name)
        assert state is not None
        self.context = ReadContext(expiring=state.expiring, single_valued=state.single_valued)
        manifest = snapshot_pb2.Manifest(dim=DIM)
        manifest.embedder.fingerprint = FINGERPRINT
        merger = ChangeMerger("default", manifest, KINDS, ANALYSER if self.words else None)
        made = LiveCollection(
            client or self.client,
            self.name,
            self.context,
            merger,
            self.lock.lease,
            logs=lambda: self.logs,
            remedy="nearline snapshots export",
        )
        self.made.append(made)
        return made

    async def delta(
        self, start: Watermark | None = None, *, client: MilvusClient | None = None
    ) -> FollowedDelta:
        """Returns the delta of another process."""
        shard = follow_snapshot(await self.collection(client), lambda live: None)
        return await shard.new_delta(start or Watermark(self.log.log_id), self.log)

    async def write(self, *changes: Change) -> None:
        """Appends changes."""
        await self.log.append([ChangeWrite(one) for one in changes])

    async def entries(self, after: Watermark | None = None) -> list[ChangeEntry]:
        """Returns the log entries after a position."""
        at = after or Watermark(self.log.log_id)
        return await self.log.read(dict(enumerate(at.positions)), limit=100_000)

    async def documents(self) -> dict[str, Document]:
        """Returns the documents in Milvus that have not expired."""
        fields = (
            *("document", "chunk", "start", "stop", "title", "gap", "passage", "rest"),
            *("attributes", "version", "expires", "vector"),
        )
        found = await self.client.query(self.name, "chunk >= 0", fields, seen=0)
        now_us = datetime.now(UTC).timestamp() * 1e6
        by_id: dict[str, list[Mapping[str, Any]]] = {}
        for row in found:
            if row["expires"] > now_us:
                by_id.setdefault(row["document"], []).append(row)
        return {one: _document(rows) for one, rows in by_id.items()}


def _document(rows: Sequence[Mapping[str, Any]]) -> Document:
    version = rows[0]["version"]
    # Where a writer died in between, what the document had beyond is there for a while.
    rows = [row for row in rows if row["version"] == version]
    assert [row["chunk"] for row in rows] == list(range(len(rows)))
    (title,) = {row["title"] for row in rows}
    text = "".join(row["gap"] + row["passage"] + row["rest"] for row in rows)
    assert all(text[row["start"] : row["stop"]] == row["passage"] for row in rows)
    attributes = parse_attributes(rows[0]["attributes"], KINDS)
    assert all(parse_attributes(row["attributes"], KINDS) == attributes for row in rows)
    return Document(title, text, attributes, version, [row["vector"][0] for row in rows])


@asynccontextmanager
async def living(uri: str, base: Sequence[Change] = ()) -> AsyncIterator[Living]:
    """Yields a snapshot of some documents in Milvus for the length of the block."""
    client = DyingClient(uri)
    able = await client.capabilities()
    name = f"nearline_living_{os.getpid()}_{next(_numbers)}"
    one = Living(client, name, words=able.words)
    try:
        await one.states.create()
        bm25 = Bm25(1.2, 0.75) if able.words else None
        await client.create(name, DIM, "IP", bm25=bm25, index="FLAT")
        await client.load(name)
        rows = [row for change in base for row in _rows(change, 0, words=able.words)]
        if rows:
            await client.insert(name, rows)
        await one.states.write(name, state_of(name, words=able.words))
        yield one
    finally:
        client.writes_left = None
        await client.drop(name)
        await one.states.remove(name)
        await client.close()


def state_of(name: str, started_us: int = 1, *, words: bool = False) -> CollectionState:
    """Returns the state of a complete snapshot without live changes."""
    return CollectionState(
        store="file://a-test",
        collection="default",
        snapshot_id=name,
        whole=True,
        index="FLAT",
        words=words,
        documents=0,
        chunks=0,
        single_valued=frozenset(KINDS),
        expiring=False,
        started_us=started_us,
    )


def _rows(change: Change, version: int, *, words: bool) -> list[dict[str, Any]]:
    return make_rows(
        change.document_id,
        change.title,
        change.text,
        change.attributes,
        version=version,
        expires=change.expires,
        bounds=change.bounds,
        vectors=change.vectors[FINGERPRINT],
        kinds=KINDS,
        analyser=ANALYSER if words else None,
    )


def upsert(
    document_id: str,
    text: str = "new",
    attributes: Attributes | None = None,
    expires: datetime | None = None,
    *,
    chunks: int = 1,
    first: float = 0.5,
) -> Change:
    """Returns a change that adds or replaces a document.

    Args:
        chunks: How many, of one sign each.
        first: First number of the first chunk's vector; the next ones have one more each.
    """
    at = np.arange(chunks)
    vectors: NDArray[np.float32] = np.ones((chunks, DIM), np.float32)
    vectors[:, 0] = first + at
    return Change(
        document_id=document_id,
        kind=ChangeKind.UPSERT,
        title=f"title of {text}",
        text=text,
        attributes=attributes or {},
        bounds=np.array([at, at + 1], np.int64).T,
        vectors={FINGERPRINT: vectors},
        expires=expires,
    )


def patch(document_id: str, attributes: Attributes) -> Change:
    """Returns a change of attributes."""
    return Change(document_id=document_id, kind=ChangeKind.ATTRIBUTES, attributes=attributes)


def delete(document_id: str) -> Change:
    """Returns a change that deletes a document."""
    return Change(document_id=document_id, kind=ChangeKind.DELETE)


def applied(before: Document | None, entry: ChangeEntry, now: datetime) -> Document | None:
    """Returns a document after a change, as the model for comparison."""
    change = entry.change
    match change.kind:
        case ChangeKind.UPSERT:
            if change.expires is not None and change.expires <= now:
                return None
            first = change.vectors[FINGERPRINT][:, 0].tolist()
            return Document(change.title, change.text, change.attributes, entry.position, first)
        case ChangeKind.DELETE:
            return None
    if before is None:
        return None
    merged = {**before.attributes, **change.attributes}
    kept = {name: value for name, value in merged.items() if value is not None}
    return before._replace(attributes=kept, version=entry.position)


def drawn(chance: Random, ids: Sequence[str], count: int) -> list[Change]:
    """Draws changes of some documents."""
    changes = []
    for number in range(count):
        name = chance.choice(ids)
        what = chance.random()
        if what < 0.2:
            changes.append(delete(name))
        elif what < 0.5:
            key = chance.choice(list(KINDS))
            values: dict[str, list[Any]] = {
                "year": [number, None, [number, 1]],
                "price": [number, number + 0.5, None],
                "tags": [f"t{number}", ["a", f"t{number}"], None],
                "made": [datetime(2000, 1, 1, 0, 0, 0, number, tzinfo=UTC), None],
            }
            changes.append(patch(name, {key: chance.choice(values[key])}))
        else:
            when = [None, None, datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)]
            changes.append(
                upsert(
                    name,
                    f"text {number} " + "é" * chance.randint(0, 9),
                    {"year": number},
                    chance.choice(when),
                    chunks=chance.randint(1, 4),
                    first=float(number),
                )
            )
    return changes


def in_batches_of(
    chance: Random, entries: Sequence[ChangeEntry], most: int
) -> list[list[ChangeEntry]]:
    """Cuts entries into batches, with those of a partition in order and the partitions mixed."""
    queues: dict[int, list[ChangeEntry]] = {}
    for entry in entries:
        queues.setdefault(entry.partition, []).append(entry)
    batches: list[list[ChangeEntry]] = []
    while queues:
        batch: list[ChangeEntry] = []
        for _ in range(chance.randint(1, most)):
            if not queues:
                break
            one = chance.choice(sorted(queues))
            batch.append(queues[one].pop(0))
            if not queues[one]:
                del queues[one]
        batches.append(batch)
    return batches


# Documents of few partitions, so that each of those has many changes.
IDS = [*in_partition(3, 3), *in_partition(7, 2), *in_partition(40, 1)]


def as_lease(lease: HeldLease) -> Lease:
    """Checks with mypy that the class fulfils the protocol."""
    return lease

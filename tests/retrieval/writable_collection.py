"""A collection that can be written to, small enough to know the answer: its shards are a dict."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from nearline import contract as c
from nearline.access.readers import Ownership
from nearline.errors import InvalidRequest, NearlineError, NotApplied
from nearline.filters import In
from nearline.store.snapshot import PARTITIONS, partition_of, shard_of
from nearline.v1 import snapshot_pb2
from retrieval.changelog.change_log import ChangeLog
from retrieval.changelog.records import Change, ChangeKind
from retrieval.embedders.endpoints import Embedders
from retrieval.protocols.shard import (
    CountRequest,
    ItemsRequest,
    ScanRequest,
    ShardCounts,
    ShardHits,
    ShardItems,
    ShardOptions,
    ShardQueries,
)
from retrieval.protocols.snapshot import SnapshotRef
from retrieval.protocols.watermark import AppliedState, Watermark
from retrieval.rollout.collections import ServedCollections
from retrieval.router.service import RetrievalService
from retrieval.search.collection import ServedCollection
from retrieval.writes.feed_block import FeedBlock
from retrieval.writes.item_quota import ItemQuota
from retrieval.writes.writer import CheckChange, Writer
from tests.retrieval.changelog.memory_log import MemoryLog
from tests.retrieval.fakes import SilentShard, WordEmbedder
from tests.retrieval.small_snapshots import FINGERPRINT

DIM = 4
SNAPSHOT = "20261125T000000Z-000001"


class DictShard(SilentShard):
    """Items by id; each answer is of the log as it is then, or as it was `held` back to.

    A search finds every item with score 0, all payload filled in.
    """

    def __init__(self, number: int, shards: int, log: MemoryLog) -> None:
        self.log = log
        self.partitions = [p for p in range(PARTITIONS) if p * shards // PARTITIONS == number]
        self.base: dict[str, c.Item] = {}
        self.held: Watermark | None = None
        self.stale = ""
        self.error: NearlineError | None = None
        self.least: list[Watermark | None] = []

    async def now(self, least: Watermark | None) -> tuple[dict[str, c.Item], AppliedState]:
        if self.error is not None:
            raise self.error
        self.least.append(least)
        head = self.held or (await self.log.state()).head
        mine = Watermark(
            head.log_id,
            tuple(p if at in self.partitions else 0 for at, p in enumerate(head.positions)),
        )
        if least is not None and not mine.covers(least, self.partitions):
            raise NotApplied("not applied", field="options.min_watermark")
        items = dict(self.base)
        for partition in self.partitions:
            for entry in await self.log.read({partition: 0}, limit=1 << 20):
                if entry.position <= mine.positions[partition]:
                    apply(items, entry.change, entry.position)
        return items, AppliedState(mine, self.stale)

    def search(
        self,
        snapshot_id: str,
        queries: ShardQueries,
        options: ShardOptions,
        deadline: float | None = None,
    ) -> asyncio.Future[Sequence[ShardHits]]:
        async def run() -> Sequence[ShardHits]:
            items, applied = await self.now(options.min_watermark)
            ids = sorted(items)[: options.k]
            none = [0] * len(ids)
            hits = ShardHits(ids, [0.0] * len(ids), none, none, none, applied=applied)
            return [replace(hits) for _ in range(queries.count)]

        return asyncio.ensure_future(run())

    async def fetch(
        self, snapshot_id: str, request: ItemsRequest, deadline: float | None = None
    ) -> ShardItems:
        items, applied = await self.now(request.min_watermark)
        return ShardItems([items[one] for one in request.ids if one in items], applied)

    async def scan(
        self, snapshot_id: str, request: ScanRequest, deadline: float | None = None
    ) -> ShardItems:
        items, applied = await self.now(request.min_watermark)
        return ShardItems(
            [items[one] for one in sorted(items) if one > request.after_id][: request.limit],
            applied,
        )

    async def count(
        self, snapshot_id: str, request: CountRequest, deadline: float | None = None
    ) -> ShardCounts:
        items, applied = await self.now(request.min_watermark)
        found: Iterable[c.Item] = items.values()
        if isinstance(request.filter, In):
            wanted = request.filter
            found = [one for one in found if has_value(one, wanted)]
        return ShardCounts(len(list(found)), [], applied)


def has_value(item: c.Item, wanted: In) -> bool:
    """Returns whether an attribute of an item has one of the wanted values."""
    value = item.attributes.get(wanted.field)
    values = value if isinstance(value, list | tuple) else (value,)
    return not set(values).isdisjoint(wanted.values)


def apply(items: dict[str, c.Item], change: Change, version: int) -> None:
    """Applies a change to items by id."""
    if change.kind is ChangeKind.DELETE:
        items.pop(change.document_id, None)
    elif change.kind is ChangeKind.UPSERT:
        items[change.document_id] = c.Item(
            id=change.document_id,
            title=change.title,
            text=change.text,
            attributes=change.attributes,
            expires=change.expires,
            version=version,
        )
    elif change.document_id in items:
        before = items[change.document_id]
        both = {**before.attributes, **change.attributes}
        kept = {name: value for name, value in both.items() if value is not None}
        items[change.document_id] = replace(before, attributes=kept, version=version)


class PickyEmbedder(WordEmbedder):
    """A WordEmbedder that refuses a text with the word "poison", and remembers how it was asked."""

    def __init__(self) -> None:
        super().__init__(DIM)
        self.asked: list[tuple[list[str], c.TextRole, c.Lane, str]] = []

    async def embed(
        self,
        texts: Sequence[str],
        role: c.TextRole = c.TextRole.DOCUMENT,
        *,
        dimensions: int | None = None,
        expected_fingerprint: str = "",
        lane: c.Lane = c.Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> c.Embeddings:
        self.asked.append((list(texts), role, lane, expected_fingerprint))
        if self.error is not None:
            raise self.error
        if any("poison" in text for text in texts):
            raise InvalidRequest("poison")
        return await super().embed(texts)


@dataclass(slots=True)
class Written:
    """The service, and what stands behind it."""

    service: RetrievalService
    writer: Writer
    log: MemoryLog
    shards: list[DictShard]
    embedder: PickyEmbedder
    served: ServedCollection = field(repr=False)

    def put(self, *items: c.Item) -> None:
        """Gives the snapshot some items."""
        for item in items:
            self.shards[shard_of(item.id, len(self.shards))].base[item.id] = item

    async def changes(self) -> dict[str, Change]:
        """Returns the last change of each item in the log."""
        entries = await self.log.read(dict.fromkeys(range(PARTITIONS), 0), limit=1 << 20)
        return {entry.change.document_id: entry.change for entry in entries}


def written(
    *,
    shards: int = 2,
    own_vectors: bool = False,
    max_tokens: int = 0,
    watermark: Watermark | None = None,
    owner: Ownership | None = None,
    check: CheckChange | None = None,
    feed_block: FeedBlock | None = None,
    quota: ItemQuota | None = None,
    log_of: Callable[[str], ChangeLog] | None = None,
) -> Written:
    """Makes a service whose collection `default` has a MemoryLog.

    log_of: The log to write to instead.
    """
    kinds = snapshot_pb2.AttributeField
    log = MemoryLog(log_id="" if watermark is None else watermark.log_id)
    manifest = snapshot_pb2.Manifest(
        snapshot_id=SNAPSHOT,
        collection=c.DEFAULT_COLLECTION,
        dim=DIM,
        metric="cosine",
        embedder=None if own_vectors else snapshot_pb2.EmbedderCard(fingerprint=FINGERPRINT),
        chunking=snapshot_pb2.Chunking(max_tokens=max_tokens),
        watermark=b"" if watermark is None else watermark.encode(),
        attributes=[
            kinds(name="kind", kind=kinds.KIND_STRING),
            kinds(name="year", kind=kinds.KIND_INT),
            kinds(name="price", kind=kinds.KIND_DOUBLE),
            kinds(name="tags", kind=kinds.KIND_STRING, is_list=True),
            kinds(name="seen", kind=kinds.KIND_TIME),
        ],
    )
    parts = [DictShard(number, shards, log) for number in range(shards)]
    in_force = SnapshotRef(collection=c.DEFAULT_COLLECTION, epoch=1, manifest=manifest)
    served = ServedCollection(in_force, parts)
    collections = ServedCollections()
    collections.serve(served)
    embedder = PickyEmbedder()
    embedders = Embedders({"here": embedder})
    service = RetrievalService(embedders, collections)
    writer = Writer(
        collections,
        embedders,
        log_of or (lambda collection: log),
        check,
        owner=lambda: owner,
        feed_block=feed_block,
        quota=quota,
    )
    return Written(service, writer, log, parts, embedder, served)


def ids_of_partition(partition: int, count: int) -> list[str]:
    """Finds ids that lie in a partition."""
    ids = (f"i{number}" for number in itertools.count())
    return list(itertools.islice((one for one in ids if partition_of(one) == partition), count))


def ids_of_shard(shard: int, shards: int, count: int) -> list[str]:
    """Finds ids that lie in a shard."""
    ids = (f"i{number}" for number in itertools.count())
    return list(itertools.islice((one for one in ids if shard_of(one, shards) == shard), count))

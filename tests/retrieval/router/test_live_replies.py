"""Live changes in replies: watermarks, staleness, and hits deleted in the meantime."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from nearline import contract as c
from nearline.errors import InvalidRequest, NotApplied, SnapshotMismatch
from nearline.store.snapshot import partition_of
from retrieval.protocols.shard import (
    ItemsRequest,
    ShardHits,
    ShardItems,
    ShardOptions,
    ShardQueries,
)
from retrieval.protocols.watermark import Watermark, decode_watermark
from tests.retrieval.fakes import SilentShard
from tests.retrieval.writable_collection import DIM, Written, ids_of_shard, written

LOG = "a" * 32
TITLE = frozenset({c.PayloadField.TITLE})
VECTOR = c.Query(vector=np.ones(DIM, np.float32))
READS: dict[str, Callable[[c.Retriever, bytes], Awaitable[c.ReplyInfo]]] = {}


def read(
    ask: Callable[[c.Retriever, bytes], Awaitable[c.ReplyInfo]],
) -> Callable[[c.Retriever, bytes], Awaitable[c.ReplyInfo]]:
    READS[ask.__name__] = ask
    return ask


@read
async def search(service: c.Retriever, least: bytes) -> c.ReplyInfo:
    return (await service.search(VECTOR, c.SearchOptions(min_watermark=least))).info


@read
async def search_batch(service: c.Retriever, least: bytes) -> c.ReplyInfo:
    options = c.SearchOptions(min_watermark=least)
    return (await service.search_batch([VECTOR, VECTOR], options)).info


@read
async def get_items(service: c.Retriever, least: bytes) -> c.ReplyInfo:
    ids = [one for shard in range(2) for one in ids_of_shard(shard, 2, 1)]
    return (await service.get_items(ids, min_watermark=least)).info


@read
async def list_items(service: c.Retriever, least: bytes) -> c.ReplyInfo:
    return (await service.list_items(min_watermark=least)).info


@read
async def count_items(service: c.Retriever, least: bytes) -> c.ReplyInfo:
    return (await service.count_items(min_watermark=least)).info


async def some(here: Written) -> bytes:
    """Writes an item to every shard; returns the watermark."""
    items = [
        c.Item(id=one, text="red cloud") for shard in range(2) for one in ids_of_shard(shard, 2, 3)
    ]
    return (await here.writer.upsert_items(items)).watermark


@pytest.mark.parametrize("ask", READS.values(), ids=READS)
async def test_a_reply_carries_the_watermark_of_applied_changes(
    ask: Callable[[c.Retriever, bytes], Awaitable[c.ReplyInfo]],
) -> None:
    here = written()
    mark = await some(here)
    info = await ask(here.service, mark)
    assert decode_watermark(info.watermark) == (await here.log.state()).head
    assert info.served_by == c.ServedBy()
    assert here.shards[0].least[-1] == here.shards[1].least[-1] == decode_watermark(mark)
    here.shards[1].stale = "the log is away"
    info = await ask(here.service, b"")
    assert info.served_by == c.ServedBy(
        source=c.Source.FALLBACK, rung="stale", reason="the log is away"
    )
    assert here.shards[0].least[-1] is None


@pytest.mark.parametrize("ask", READS.values(), ids=READS)
async def test_a_watermark_that_no_shard_has_reached_is_refused(
    ask: Callable[[c.Retriever, bytes], Awaitable[c.ReplyInfo]],
) -> None:
    here = written()
    for shard in here.shards:
        shard.held = Watermark(here.log.log_id)
    mark = await some(here)
    with pytest.raises(NotApplied, match=r"2 of 2 shards .* not applied"):
        await ask(here.service, mark)
    with pytest.raises(SnapshotMismatch, match="omit the watermark"):
        await ask(here.service, Watermark(LOG).encode())
    with pytest.raises(InvalidRequest, match="not a watermark of this service") as caught:
        await ask(here.service, b"junk")
    assert caught.value.field.endswith("min_watermark")


async def test_example_queries_and_second_rounds_pass_the_watermark_on() -> None:
    here = written()
    mark = decode_watermark(await some(here))
    assert mark is not None
    for shard in here.shards:
        shard.base = {one: replace(item) for one, item in shard.base.items()}
    (one,) = ids_of_shard(0, 2, 1)
    options = c.SearchOptions(min_watermark=mark.encode(), payload=TITLE, diversity=0.5)

    class Vectors(SilentShard):
        """Answers searches and fetches like another shard, with vectors."""

        def __init__(self, number: int) -> None:
            self.other = here.shards[number]

        def search(
            self,
            snapshot_id: str,
            queries: ShardQueries,
            options: ShardOptions,
            deadline: float | None = None,
        ) -> asyncio.Future[Sequence[ShardHits]]:
            return self.other.search(snapshot_id, queries, options, deadline)

        async def fetch(
            self, snapshot_id: str, request: ItemsRequest, deadline: float | None = None
        ) -> ShardItems:
            found = await self.other.fetch(snapshot_id, request)
            ones = np.ones(DIM, np.float32)
            return ShardItems([replace(item, vector=ones) for item in found.items], found.applied)

    here.served.shards = (Vectors(0), Vectors(1))
    reply = await here.service.search(c.Query(item_ids=(one,)), options)
    assert len(reply.hits) == 5
    # The example; candidates; vectors to choose by; titles.
    seen = [len(shard.least) - shard.least.count(None) for shard in here.shards]
    assert seen == [4, 3] and set(here.shards[0].least) | set(here.shards[1].least) == {mark, None}


class Replaced(SilentShard):
    """A shard whose documents now have other numbers of chunks."""

    def __init__(self, chunks: dict[str, int]) -> None:
        self.chunks = chunks

    async def fetch(
        self, snapshot_id: str, request: ItemsRequest, deadline: float | None = None
    ) -> ShardItems:
        pairs = zip(request.ids, request.chunks, strict=True)
        there = [(one, chunk) for one, chunk in pairs if chunk < self.chunks.get(one, 0)]
        return ShardItems([c.Item(id=one, title=f"{one}#{chunk}") for one, chunk in there])


async def test_a_diverse_list_is_empty_if_all_hits_were_deleted() -> None:
    here = written(shards=1)
    await some(here)
    found = here.shards[0]

    class Emptied(Replaced):
        def search(
            self,
            snapshot_id: str,
            queries: ShardQueries,
            options: ShardOptions,
            deadline: float | None = None,
        ) -> asyncio.Future[Sequence[ShardHits]]:
            return found.search(snapshot_id, queries, options, deadline)

    here.served.shards = (Emptied({}),)
    reply = await here.service.search(VECTOR, c.SearchOptions(diversity=0.5, payload=TITLE))
    assert reply.hits == []


async def test_a_shard_that_is_behind_only_lowers_coverage() -> None:
    here = written()
    here.shards[1].error = NotApplied("not yet", field="options.min_watermark")
    mark = await some(here)
    (one,) = ids_of_shard(1, 2, 1)
    reply = await here.service.get_items([one, *ids_of_shard(0, 2, 1)], min_watermark=mark)
    assert reply.info.coverage.missing_shards == (1,)
    assert reply.ignored_ids == [c.IgnoredId(one, c.IgnoredReason.SHARD_UNAVAILABLE)]
    told = decode_watermark(reply.info.watermark)
    assert told is not None and told.positions[partition_of(one)] == 0

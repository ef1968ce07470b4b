"""Reads of a client include its own writes, and its last 1,024 collections are remembered."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import numpy as np
import pytest

from nearline import AsyncClient, contract as c
from nearline.clients.own_writes import OwnWrites, merge_watermarks
from nearline.errors import NotApplied, SnapshotMismatch
from nearline.serving import Registration, running
from nearline.v1 import retrieval_pb2_grpc
from retrieval.protocols.watermark import Watermark, decode_watermark
from retrieval.router.servicer import RetrievalServicer
from tests.retrieval.writable_collection import DIM, Written, ids_of_partition, written

VECTOR = np.ones(DIM, np.float32)


@contextlib.asynccontextmanager
async def serving(here: Written) -> AsyncIterator[str]:
    servicer = RetrievalServicer(here.service, writer=here.writer)
    add = retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server
    registration = Registration(
        "nearline.v1.RetrievalService", lambda server: add(servicer, server)
    )
    async with running([registration]) as address:
        yield address


def mark(log_id: str = "a" * 32, **positions: int) -> bytes:
    """Returns a watermark. positions: By partition, "p3"."""
    return Watermark(log_id).advanced({int(p[1:]): at for p, at in positions.items()}).encode()


async def test_every_read_waits_for_all_writes_of_its_client() -> None:
    here = written()
    (first,), (second,) = ids_of_partition(3, 1), ids_of_partition(60, 1)
    async with serving(here) as address, AsyncClient(address) as client:
        before = (await here.log.state()).head
        await client.upsert([c.Item(id=first, text="red")])
        between = (await here.log.state()).head
        await client.upsert([c.Item(id=second, text="blue")])
        reads: list[Callable[[], Awaitable[object]]] = [
            lambda: client.search(VECTOR),
            lambda: client.search_batch([VECTOR]),
            lambda: client.get([first, second]),
            lambda: client.count(),
            lambda: anext(client.items()),
        ]
        for read in reads:
            # The later write's own watermark says nothing of the earlier, in another partition.
            here.shards[0].held = here.shards[1].held = before
            with pytest.raises(NotApplied, match="own_writes=False"):
                await read()
            here.shards[0].held, here.shards[1].held = between, None
            await read()
        assert (await client.count()).count == 2
        here.shards[0].held = here.shards[1].held = before
        with pytest.raises(NotApplied, match="own_writes=False"):
            await client.delete_matching({"any": []})


async def test_what_the_caller_gives_and_own_writes_false_are_respected() -> None:
    here = written()
    async with serving(here) as address:
        async with AsyncClient(address) as client:
            before = (await here.log.state()).head
            both = [c.Item(id=f"i{number}", text="red") for number in range(20)]
            reply = await client.upsert(both)
            here.shards[0].held = here.shards[1].held = before
            given = before.encode()
            options = c.SearchOptions(min_watermark=given)
            assert (await client.search(VECTOR, options=options)).hits == []
            assert (await client.count(min_watermark=given)).count == 0
            with pytest.raises(NotApplied) as raised:
                await client.count(min_watermark=reply.watermark)
            assert "own_writes" not in raised.value.message
        async with AsyncClient(address, own_writes=False) as client:
            await client.upsert([c.Item(id="b", text="red")])
            assert (await client.count()).count == 0


async def test_deletes_are_own_writes_and_other_collections_have_none() -> None:
    here = written()
    async with serving(here) as address, AsyncClient(address) as client:
        await client.upsert([c.Item(id="a", text="red")])
        await client.delete(["a"])
        assert (await client.count()).count == 0
        least = [one for shard in here.shards for one in shard.least]
        head = (await here.log.state()).head
        assert least[-1] == head
        async with AsyncClient(address) as other:
            await other.count()
        assert here.shards[0].least[-1] is None


async def test_writes_to_a_log_that_is_gone_keep_no_read_from_being_answered() -> None:
    here, again = written(), written()
    async with serving(here) as address, AsyncClient(address) as client:
        await client.upsert([c.Item(id="a", text="red")])
        for shard, empty in zip(here.shards, again.shards, strict=True):
            shard.log = empty.log
        assert (await client.count()).count == 0
        assert here.shards[0].least[-1] is None
        # A caller's own watermark is an error, as everywhere.
        with pytest.raises(SnapshotMismatch):
            await client.count(min_watermark=mark())


def test_watermarks_are_merged_by_partition() -> None:
    merged = decode_watermark(merge_watermarks(mark(p1=5, p2=1), mark(p1=3, p9=4)))
    assert merged == decode_watermark(mark(p1=5, p2=1, p9=4))
    other = mark("b" * 32, p1=1)
    assert merge_watermarks(other, mark(p1=9)) == other
    for older in (b"", b"\xff", b"of a later version"):
        assert merge_watermarks(other, older) == other
    assert merge_watermarks(b"of a later version", other) == b"of a later version"


def test_the_writes_of_1024_collections_are_remembered() -> None:
    writes = OwnWrites()
    for number in range(1_100):
        writes.note(f"c{number}", mark(p1=1))
        writes.note("busy", mark(p1=number))
    assert len(writes._watermarks) == 1_024
    assert writes._watermarks["busy"] == mark(p1=1_099)
    writes.note("empty", b"")
    assert "empty" not in writes._watermarks and "c0" not in writes._watermarks

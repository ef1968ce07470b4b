"""Bulk writes in batches: counts, order and errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TypeVar, cast

import pytest

from nearline import contract as c
from nearline.errors import InvalidRequest, Overloaded
from retrieval.changelog.change_log import ChangeLog
from retrieval.protocols.watermark import decode_watermark
from tests.retrieval.writable_collection import written
from tests.waits import until

_T = TypeVar("_T")
APPLIED, REPLACED = c.WriteOutcome.APPLIED, c.WriteOutcome.REPLACED
DELETED, ABSENT = c.WriteOutcome.DELETED, c.WriteOutcome.ABSENT
REJECTED = c.WriteOutcome.REJECTED


def item(document_id: str, text: str = "red cloud") -> c.Item:
    return c.Item(id=document_id, text=text)


async def each(values: Iterable[_T]) -> AsyncIterator[_T]:
    for value in values:
        yield value


async def test_batches_are_counted_and_their_watermark_has_them_all() -> None:
    here = written()
    here.put(item("b"))
    batches = [[item("a"), item("b")], [item("c"), item("bad", "")], [item("a")]]
    reply = await here.writer.upsert_batches(each(batches))
    assert reply.counts == {APPLIED: 2, REPLACED: 2, REJECTED: 1}
    assert [one.id for one in reply.rejections] == ["bad"]
    mark, head = decode_watermark(reply.watermark), (await here.log.state()).head
    assert mark == head
    gone = await here.writer.delete_batches(each([["a", "x"], ["b"]]))
    assert gone.counts == {DELETED: 2, ABSENT: 1}
    nothing = await here.writer.delete_batches(each([]))
    assert (nothing.counts, nothing.watermark) == ({}, b"")


async def test_the_first_thousand_rejections_are_returned() -> None:
    here = written()
    batches = [[item(f"{b}-{n}", "") for n in range(600)] for b in range(3)]
    reply = await here.writer.upsert_batches(each(batches))
    assert reply.counts == {REJECTED: 1_800}
    assert len(reply.rejections) == 1_000 and reply.rejections[-1].id == "1-399"


async def test_a_failed_batch_is_named_and_earlier_ones_are_durable() -> None:
    here = written()
    batches = [[item("a"), item("b")], [item("c"), item("c")], [item("d")]]
    with pytest.raises(InvalidRequest, match=r"batch 2: .*'c' twice.*durable before it") as e:
        await here.writer.upsert_batches(each(batches))
    assert "durable before it: 2 items" in e.value.message
    assert sorted(await here.changes()) == ["a", "b"]

    async def breaks() -> AsyncIterator[Sequence[c.Item]]:
        yield [item("e")]
        raise InvalidRequest("malformed")

    with pytest.raises(InvalidRequest, match="batch 2: malformed"):
        await here.writer.upsert_batches(breaks())
    assert "e" in await here.changes()


async def test_a_batch_is_read_once_the_one_before_it_is_written() -> None:
    here = written()
    gate, read = asyncio.Event(), 0
    log = here.log

    class Slow:
        async def append(self, *arguments: object) -> object:
            await gate.wait()
            return await log.append(*arguments)  # type: ignore[arg-type]

    async def batches() -> AsyncIterator[Sequence[str]]:
        nonlocal read
        for number in range(5):
            read += 1
            yield [f"i{number}"]

    here.writer._log_of = lambda collection: cast(ChangeLog, Slow())
    running = asyncio.create_task(here.writer.delete_batches(batches()))
    await until(lambda: read >= 1)
    for _ in range(200):
        await asyncio.sleep(0)
    assert read == 1
    gate.set()
    assert (await running).counts == {ABSENT: 5}


async def test_batches_wait_for_an_overloaded_embedder() -> None:
    here = written()
    await here.writer.upsert_items([item("a")])
    here.embedder.error = Overloaded("full", retry_after_s=0.001)
    running = asyncio.create_task(here.writer.upsert_batches(each([[item("a")]])))
    async with asyncio.timeout(10):
        while len(here.embedder.asked) < 4:
            await asyncio.sleep(0)
        here.embedder.error = None
        assert (await running).counts == {REPLACED: 1}

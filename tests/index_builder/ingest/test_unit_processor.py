"""Processing of a batch: failures end, and units that kill workers affect no others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio

from index_builder.ingest import unit_processor
from index_builder.ingest.document_writer import DocumentWriter
from index_builder.ingest.file_reader import read_document
from index_builder.ingest.lease_queue import LeaseQueue
from index_builder.ingest.load_stats import LoadStatsReader
from index_builder.ingest.records import ALONE_AFTER, MAX_LOSSES, QueueLimits
from index_builder.ingest.unit_processor import RetryPolicy, UnitProcessor
from index_builder.readers.sandbox import SandboxReader
from nearline import contract as c
from nearline.access.caller import Caller
from nearline.access.method_guard import delegated_caller
from nearline.access.rights import Right
from nearline.errors import FeedBlocked, InternalError, NearlineError
from nearline.retry import Backoff
from retrieval.redis_client.connection import Redis, connect
from retrieval.writes.feed_block import FeedBlock
from tests.index_builder.ingest.submissions import job_store_of, submission, worker_of
from tests.index_builder.ingest.test_document_writer import FaultyWriter
from tests.redis_server import needs_redis, valkey

pytestmark = [pytest.mark.service, needs_redis]
RETRIES = RetryPolicy(attempts=3, backoff=Backoff(0.0))


@pytest_asyncio.fixture(name="redis")
async def give_redis() -> AsyncIterator[Redis]:
    async with valkey() as url:
        client = connect(url, timeout_s=10.0)
        yield client
        await client.aclose()


def processor_of(
    redis: Redis, writer: FaultyWriter, queue: LeaseQueue | None = None
) -> UnitProcessor:
    return UnitProcessor(queue or worker_of(redis), DocumentWriter(writer), RETRIES, (), 10.0)


async def submit_rows(redis: Redis, count: int) -> None:
    """Submits a file of rows with the ids r0, r1 and so on."""
    rows = b"".join(b'{"id": "r%d", "text": "text"}\n' % number for number in range(count))
    asked = submission("job", [c.SourceFile("rows.jsonl", rows)])
    await job_store_of(redis).submit(replace(asked, collection="books"))


async def submit(redis: Redis, *names: str) -> None:
    items = [c.Item(id=one, text="text") for one in names]
    asked = replace(submission("job", items), collection="books")
    await job_store_of(redis).submit(asked)


async def results(redis: Redis) -> dict[str, c.IngestResult]:
    return {one.document_id: one for one in (await job_store_of(redis).results("job", 0, 100))[0]}


def at_fault(name: str) -> Callable[[Sequence[c.Item]], NearlineError | None]:
    """Returns a fault of every call that contains this item."""

    def fault(items: Sequence[c.Item]) -> NearlineError | None:
        return InternalError("a bug") if any(one.id == name for one in items) else None

    return fault


async def test_failures_are_retried_until_they_become_dead_letters(redis: Redis) -> None:
    await submit(redis, "a", "bad", "b")
    processor = processor_of(redis, FaultyWriter(at_fault("bad")))
    assert await processor.process(await worker_of(redis).take(10)) == 2
    assert (await LoadStatsReader(redis).read()).delayed == 1
    for ended in (0, 1):
        [unit] = await worker_of(redis).take(10)
        assert await processor.process([unit]) == ended
    found = await results(redis)
    assert {name: one.outcome.value for name, one in found.items()} == {
        "a": "indexed",
        "b": "indexed",
        "bad": "dead",
    }
    assert (found["bad"].attempts, found["bad"].reason) == (3, "INTERNAL")
    assert found["bad"].message == "a bug (tried 3 times)"
    assert (await job_store_of(redis).job("job")).state is c.JobState.PARTLY_FAILED


async def test_a_unit_with_which_too_many_workers_were_lost_is_dead(redis: Redis) -> None:
    await submit(redis, "killer")
    lost = worker_of(redis, "lost", lease_s=0.0)
    assert [len(await lost.take(2)) for _ in range(ALONE_AFTER + 1)] == [1] * ALONE_AFTER + [0]
    for _ in range(MAX_LOSSES - ALONE_AFTER):
        assert await lost.take_suspect() is not None
        assert await lost.take(2) == []
    killer = await worker_of(redis).take_suspect()
    assert killer is not None and killer.losses == MAX_LOSSES
    writer = FaultyWriter()
    assert await processor_of(redis, writer).process([killer]) == 1
    dead = (await results(redis))["killer"]
    assert dead.outcome is c.IngestOutcome.DEAD and writer.calls == 0
    assert f"{MAX_LOSSES} workers were lost" in dead.message


async def test_a_bug_triggered_by_one_file_does_not_block_others(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path, name: str, apart: SandboxReader) -> c.Item:
        if name == "a.md":
            raise ZeroDivisionError
        return read_document(path, name, apart)

    monkeypatch.setattr(unit_processor, "read_document", broken)
    sources: list[c.IngestSource] = [
        c.SourceFile("a.md", b"text"),
        c.Item(id="b", text="text"),
        c.SourceFile("c.md", b"text"),
    ]
    await job_store_of(redis).submit(replace(submission("job", sources), collection="books"))
    processor = processor_of(redis, FaultyWriter())
    try:
        for ended in (2, 0, 1):
            assert await processor.process(await worker_of(redis).take(10)) == ended
    finally:
        processor.close()
    found = await results(redis)
    assert found["b"].outcome is found["c.md"].outcome is c.IngestOutcome.INDEXED
    assert found["a.md"].reason == "INTERNAL" and "ZeroDivisionError" in found["a.md"].message


async def test_documents_are_written_on_behalf_of_their_tenant(redis: Redis) -> None:
    callers: dict[str, Caller | None] = {}

    def look(items: Sequence[c.Item]) -> None:
        callers.update((one.id, delegated_caller()) for one in items)

    for tenant in ("shop", "*"):
        asked = replace(submission(f"of {tenant}", tenant=tenant), collection="books")
        await job_store_of(redis).submit(asked)
    assert (
        await processor_of(redis, FaultyWriter(look)).process(await worker_of(redis).take(10)) == 2
    )
    shop = callers["of shop-0"]
    assert shop is not None
    assert (shop.tenant, shop.rights) == ("shop", {"books": Right.WRITE})
    # An operator's job is written with the credential of the worker.
    assert callers["of *-0"] is None
    assert delegated_caller() is None


async def test_cancelled_documents_are_not_written(redis: Redis) -> None:
    await submit(redis, "a", "b")
    writer = FaultyWriter()
    units = await worker_of(redis).take(10)
    await job_store_of(redis).close("job", cancel=True)
    assert await processor_of(redis, writer).process(units) == 2
    assert writer.calls == 0
    job = await job_store_of(redis).job("job")
    assert (job.state, job.cancelled) == (c.JobState.CANCELLED, 2)


async def test_files_that_are_cancelled_while_an_earlier_one_is_read_are_not(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, opened = asyncio.get_running_loop(), list[str]()

    def read_and_cancel(path: Path, name: str, apart: SandboxReader) -> c.Item:
        opened.append(name)
        cancelling = job_store_of(redis).close("job", cancel=True)
        asyncio.run_coroutine_threadsafe(cancelling, loop).result(20)
        return read_document(path, name, apart)

    monkeypatch.setattr(unit_processor, "read_document", read_and_cancel)
    sources: list[c.IngestSource] = [c.SourceFile(f"{one}.md", b"text") for one in "abc"]
    await job_store_of(redis).submit(replace(submission("job", sources), collection="books"))
    processor = processor_of(redis, FaultyWriter())
    try:
        assert await processor.process(await worker_of(redis, lease_s=60.0).take(10)) == 3
    finally:
        processor.close()
    assert opened == ["a.md"]
    job = await job_store_of(redis).job("job")
    assert (job.state, job.indexed, job.cancelled) == (c.JobState.CANCELLED, 1, 2)


async def test_each_collection_of_a_batch_is_written_separately(redis: Redis) -> None:
    await submit(redis, "a")
    await job_store_of(redis).submit(submission("other"))
    units = await worker_of(redis).take(10)
    assert {one.collection for one in units} == {"books", "default"}
    seen: list[str] = []
    writer = FaultyWriter(lambda items: seen.append(items[0].id))
    with pytest.raises(AssertionError):
        # The writer of this test knows one collection; the first call was for the other.
        await processor_of(redis, writer).process(units)
    assert seen == ["a"]


async def test_a_file_that_waited_for_room_more_often_than_it_may_fail_is_expanded(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit_processor, "_QUEUE_FULL_RETRY_S", 0.0)
    await submit_rows(redis, 3)
    # Room for the file and one of its documents.
    queue = worker_of(redis, limits=QueueLimits(units=2))
    processor = processor_of(redis, FaultyWriter(), queue)
    try:
        [file] = await queue.take(1)
        await processor.process([file])
        taken = await queue.take(10)
        for _ in range(RETRIES.attempts + 1):
            [file] = [one for one in taken if isinstance(one.source, c.SourceFile)]
            assert file.failed == 0
            assert await processor.process([file]) == 0
            taken = [*(one for one in taken if one is not file), *await queue.take(10)]
        while taken:
            await processor.process(taken)
            taken = await queue.take(10)
    finally:
        processor.close()
    job = await job_store_of(redis).job("job")
    assert (job.indexed, job.dead, job.state) == (3, 0, c.JobState.SUCCEEDED)


async def test_a_file_waits_in_the_queue_while_there_is_no_room_for_its_documents(
    redis: Redis,
) -> None:
    await submit_rows(redis, 5)
    # Room for the file and two of its documents.
    queue = worker_of(redis, limits=QueueLimits(units=3))
    processor = processor_of(redis, FaultyWriter(), queue)
    try:
        [file] = await queue.take(10)
        assert await processor.process([file]) == 0
        state = await LoadStatsReader(redis).read()
        # No worker holds it, so that any may continue once there is room.
        assert (state.in_hand, state.delayed, state.waiting) == (0, 1, 2)
        assert await processor.process(await queue.take(10)) == 2
    finally:
        processor.close()


async def test_a_worker_that_was_overtaken_neither_adds_rows_nor_ends_their_file(
    redis: Redis,
) -> None:
    await submit_rows(redis, 3)
    slow, other = worker_of(redis, "slow", lease_s=0.0), worker_of(redis)
    overtaken = await slow.take(1)
    file = await other.take(1)
    assert [one.entry for one in file] == [one.entry for one in overtaken]
    late = processor_of(redis, FaultyWriter(), slow)
    processor = processor_of(redis, FaultyWriter())
    try:
        assert await late.process(overtaken) == 0
        state = await LoadStatsReader(redis).read()
        assert (state.in_hand, state.delayed, state.waiting) == (1, 0, 0)
        await processor.process(file)
        assert await processor.process(await other.take(10)) == 3
    finally:
        late.close()
        processor.close()
    job = await job_store_of(redis).job("job")
    assert (job.indexed, job.dead, job.state) == (3, 0, c.JobState.SUCCEEDED)


async def test_a_file_of_rows_that_waits_for_room_in_redis_has_not_failed(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def check(self, what: str) -> None:
            raise FeedBlocked("nearly full")

    monkeypatch.setattr(unit_processor, "_QUEUE_FULL_RETRY_S", 0.0)
    await job_store_of(redis).submit(submission("job", [c.SourceFile("rows.jsonl", b"{}")]))
    processor = processor_of(redis, FaultyWriter())
    processor._feed_block = cast(FeedBlock, Full())
    for _ in range(RETRIES.attempts + 1):
        [file] = await worker_of(redis).take(10)
        assert file.failed == 0
        assert await processor.process([file]) == 0

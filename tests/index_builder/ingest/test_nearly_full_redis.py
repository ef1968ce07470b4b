"""While Redis or the router is nearly full, the queue takes nothing more, and nothing dies."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from index_builder.ingest import document_writer, unit_processor
from index_builder.ingest.document_writer import DocumentWriter
from index_builder.ingest.load_stats import LoadStatsReader
from index_builder.ingest.service import IngestService
from index_builder.ingest.unit_processor import RetryPolicy, UnitProcessor
from nearline import contract as c
from nearline.errors import FeedBlocked, InternalError
from nearline.retry import Backoff
from retrieval.redis_client.connection import Redis, connect
from retrieval.writes.feed_block import FeedBlock, redis_resource
from tests.index_builder.ingest.submissions import job_store_of, worker_of
from tests.index_builder.ingest.test_document_writer import FaultyWriter
from tests.redis_server import give_shared_redis, needs_redis

__all__ = ["give_shared_redis"]  # A fixture.
pytestmark = [pytest.mark.service, needs_redis]
RETRIES = RetryPolicy(attempts=2, backoff=Backoff(0.0))


@pytest_asyncio.fixture(name="redis")
async def give_redis(shared_redis: str) -> AsyncIterator[Redis]:
    async with connect(shared_redis, timeout_s=10.0, retries=0) as client:
        await client.flushall()
        yield client
        await client.config_set("maxmemory", 0)


async def fill(redis: Redis, block: FeedBlock, share: float) -> None:
    """Lets a share of the memory of Redis be used."""
    used = int((await redis.info("memory"))["used_memory"])
    await redis.config_set("maxmemory", int(used / share))
    await block.measure()


async def test_submissions_are_refused_and_deletes_are_not(redis: Redis) -> None:
    block = FeedBlock([redis_resource(redis, 0.85)])
    service = IngestService(job_store_of(redis), LoadStatsReader(redis), 60.0, block)
    items = [c.Item(id=one, text="text") for one in ("a", "bad")]
    await service.submit(items, collection="books", job_id="job")
    broken = FaultyWriter(lambda items: InternalError("bug") if items[0].id == "bad" else None)
    processor = UnitProcessor(
        worker_of(redis), DocumentWriter(broken), RetryPolicy(1, Backoff(0.0)), (), 10.0
    )
    for one in await worker_of(redis).take(10):
        await processor.process([one])
    await service.submit(items, collection="books", job_id="waits")
    await fill(redis, block, 0.9)
    with pytest.raises(FeedBlocked, match=r"submissions are refused, .*--feed-block-redis 0\.85"):
        await service.submit(items, collection="books")
    (letter,) = (await service.dead_letters()).letters
    assert await service.delete_dead_letters([letter.letter_id]) == 1
    assert (await service.cancel("waits")).state is c.JobState.CANCELLING
    await fill(redis, block, 0.5)
    await service.submit(items, collection="books")


async def test_rows_of_a_file_wait_and_none_is_lost(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit_processor, "_QUEUE_FULL_RETRY_S", 0.0)
    block = FeedBlock([redis_resource(redis, 0.85)])
    service = IngestService(job_store_of(redis), LoadStatsReader(redis), 60.0)
    rows = b"".join(b'{"id": "r%d", "text": "text"}\n' % number for number in range(5))
    sources: list[c.IngestSource] = [
        c.SourceFile("rows.jsonl", rows),
        c.Item(id="whole", text="text"),
    ]
    await service.submit(sources, collection="books", job_id="job")
    queue, writer = worker_of(redis), FaultyWriter()
    processor = UnitProcessor(queue, DocumentWriter(writer), RETRIES, (), 10.0, feed_block=block)
    try:
        await fill(redis, block, 0.9)
        # More often than a document may fail. What the queue holds already is written.
        for written in (1, 0, 0, 0):
            assert await processor.process(await queue.take(10)) == written
        assert list(writer.items) == ["whole"]
        await fill(redis, block, 0.5)
        for written in (0, 5):
            assert await processor.process(await queue.take(10)) == written
    finally:
        processor.close()
    job = await service.job("job")
    assert (job.indexed, job.dead, job.state) == (6, 0, c.JobState.SUCCEEDED)


async def test_a_router_that_is_nearly_full_is_waited_for_and_no_document_dies(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_writer, "_RETRY_S", 0.0)
    service = IngestService(job_store_of(redis), LoadStatsReader(redis), 60.0)
    await service.submit([c.Item(id="a", text="text")], collection="books", job_id="job")
    refusals = [FeedBlocked("the disk has 1 MiB free")] * 10
    writer = FaultyWriter(lambda items: refusals.pop() if refusals else None)
    processor = UnitProcessor(worker_of(redis), DocumentWriter(writer), RETRIES, (), 10.0)
    assert await processor.process(await worker_of(redis).take(10)) == 1
    job = await service.job("job")
    assert (job.indexed, job.dead, writer.calls) == (1, 0, 11)
    (result,) = (await service.results("job")).results
    assert result.attempts == 1

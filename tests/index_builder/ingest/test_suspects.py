"""A document that kills its worker becomes the only dead letter, however large the batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from index_builder.ingest import keys
from index_builder.ingest.document_writer import DocumentWriter
from index_builder.ingest.lease_queue import LeaseQueue
from index_builder.ingest.load_stats import LoadStatsReader
from index_builder.ingest.records import ALONE_AFTER, MAX_LOSSES, QueueLimits, Unit
from index_builder.ingest.settings import WorkerSettings
from index_builder.ingest.unit_processor import RetryPolicy, UnitProcessor
from index_builder.ingest.worker import Worker
from nearline import contract as c
from nearline.errors import NearlineError
from nearline.retry import Backoff
from retrieval.redis_client.connection import Redis, connect
from tests.index_builder.ingest.submissions import job_store_of, submission, worker_of
from tests.index_builder.ingest.test_document_writer import FaultyWriter
from tests.redis_server import give_shared_redis, needs_redis

__all__ = ["give_shared_redis"]  # A fixture.
pytestmark = [pytest.mark.service, needs_redis]
KILLER = "job-20"


@pytest_asyncio.fixture(name="redis")
async def give_redis(shared_redis: str) -> AsyncIterator[Redis]:
    client = connect(shared_redis, timeout_s=10.0)
    await client.flushall()
    yield client
    await client.aclose()


async def _live(redis: Redis, name: str, kills: list[int], *, batch: int, in_flight: int) -> bool:
    """Runs a worker until the queue is empty, or until a document kills it; returns whether."""
    killed = asyncio.get_running_loop().create_future()

    def fault(items: Sequence[c.Item]) -> NearlineError | None:
        if any(one.id == KILLER for one in items):
            kills.append(len(items))
            if not killed.done():
                killed.set_result(None)
            raise asyncio.CancelledError
        return None

    chosen = WorkerSettings(batch=batch, in_flight=in_flight, poll_s=0.01, lease_s=1_000.0)
    queue = LeaseQueue(redis, name, chosen.lease_s, QueueLimits())
    retries = RetryPolicy(attempts=3, backoff=Backoff(0.0))
    processor = UnitProcessor(queue, DocumentWriter(FaultyWriter(fault)), retries, (), 10.0)
    worker = Worker(queue, processor, LoadStatsReader(redis), name, chosen)
    worker.start()

    async def emptied() -> None:
        while (await LoadStatsReader(redis).read()).lag:
            await asyncio.sleep(0.01)

    empty = asyncio.create_task(emptied())
    await asyncio.wait([empty, killed], return_when=asyncio.FIRST_COMPLETED)
    ended = killed.done()
    for task in (*worker._tasks, *worker._background, empty):
        task.cancel()
    await asyncio.wait([*worker._tasks, *worker._background, empty])
    # What it held is free again at once, as after the time of a lease.
    leases: Any = await redis.zrange(keys.LEASES, 0, -1)
    for one in leases:
        await redis.zadd(keys.LEASES, {one: 0})
    return ended


@pytest.mark.parametrize("batch, in_flight", [(64, 1), (64, 4), (8, 4), (1, 1)])
async def test_of_64_documents_only_the_one_that_kills_workers_is_dead(
    redis: Redis, batch: int, in_flight: int
) -> None:
    asked = replace(submission("job", 64), collection="books")
    await job_store_of(redis).submit(asked)
    kills: list[int] = []
    for number in range(3 * MAX_LOSSES):
        async with asyncio.timeout(20.0):
            if not await _live(redis, f"w{number}", kills, batch=batch, in_flight=in_flight):
                break
    job = await job_store_of(redis).job("job")
    assert (job.indexed, job.dead, job.left) == (63, 1, 0)
    letters, _ = await job_store_of(redis).letters.page("", {}, 100, with_source=False)
    assert [one.result.document_id for one in letters] == [KILLER]
    assert f"{MAX_LOSSES} workers were lost" in letters[0].result.message
    # The last deaths struck nobody else.
    assert len(kills) == MAX_LOSSES and kills[ALONE_AFTER:] == [1] * (MAX_LOSSES - ALONE_AFTER)


async def test_suspects_are_leased_one_at_a_time_and_innocents_together(redis: Redis) -> None:
    await job_store_of(redis).submit(submission("job", 5))
    for _ in range(ALONE_AFTER):
        assert len(await worker_of(redis, "lost", lease_s=0.0).take(5)) == 5
    await job_store_of(redis).submit(submission("new", 3))
    worker = worker_of(redis)
    assert not await worker.has_suspects()
    taken = await worker.take(10)
    assert {one.job_id for one in taken} == {"new"}
    assert await worker.has_suspects()
    assert (await LoadStatsReader(redis).read()).lag == 8
    first = await worker.take_suspect()
    assert isinstance(first, Unit) and (first.losses, first.failed) == (ALONE_AFTER, 0)
    # A retry of a suspect is one of a suspect.
    assert await worker.give_back([first], failed=True) == 1
    assert await worker.take(10) == []
    found = [await worker.take_suspect() for _ in range(5)]
    assert len({one.place for one in found if one}) == 5
    assert [one.failed for one in found if one and one.place == first.place] == [1]
    assert await worker.take_suspect() is None


async def test_a_full_redis_ends_no_leases(redis: Redis) -> None:
    await job_store_of(redis).submit(submission("job", 2))
    worker = worker_of(redis)
    units = await worker.take(2)
    await redis.config_set("maxmemory", 1)
    try:
        assert await worker.extend(units) == []
        assert await worker.begin(["job"]) == set()
        assert await worker.give_back(units[:1], failed=True) == 1
        [again] = await worker.take(2)
        assert again.failed == 1
    finally:
        await redis.config_set("maxmemory", 0)

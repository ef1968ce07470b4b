"""The state of the queue in a real Redis: the age of the oldest waiting unit, and its workers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import pytest_asyncio

from index_builder.ingest import load_stats
from index_builder.ingest.load_stats import LoadStatsReader
from index_builder.ingest.script_runner import clock_us
from nearline import contract as c
from nearline.times import to_us
from retrieval.redis_client.connection import Redis, connect
from tests.index_builder.ingest.submissions import job_store_of, submission, take_all, worker_of
from tests.redis_server import give_shared_redis, needs_redis

__all__ = ["give_shared_redis"]  # A fixture.
pytestmark = [pytest.mark.service, needs_redis]


@pytest_asyncio.fixture(name="redis")
async def give_redis(shared_redis: str) -> AsyncIterator[Redis]:
    client = connect(shared_redis, timeout_s=10.0)
    await client.flushall()
    yield client
    await client.aclose()


async def age_s(redis: Redis) -> float:
    return (await LoadStatsReader(redis).read()).oldest_age_s


async def test_the_age_is_that_of_the_oldest_unit_that_no_worker_has(redis: Redis) -> None:
    assert await age_s(redis) == 0
    store, worker = job_store_of(redis), worker_of(redis)
    for priority in (c.JobPriority.LOW, c.JobPriority.HIGH):
        for tenant in ("a", "b"):
            one = submission(f"{tenant}-{priority.value}", 2, tenant=tenant, priority=priority)
            await store.submit(one)
    await worker.take(3)
    before_us = await clock_us(redis)
    age_us = await age_s(redis) * 1e6
    after_us = await clock_us(redis)
    waiting = await take_all(worker)
    assert len(waiting) == 5
    oldest_us = min(to_us(one.as_of) for one in waiting)
    # Half a microsecond for rounding.
    assert before_us - 0.5 <= oldest_us + age_us <= after_us + 0.5
    assert await age_s(redis) == 0


async def test_the_age_skips_units_that_a_worker_has(redis: Redis) -> None:
    store, worker = job_store_of(redis), worker_of(redis)
    await store.submit(submission("first"))
    await worker.take(1)
    between_us = await clock_us(redis)
    await store.submit(submission("second"))
    assert 0 < await age_s(redis) * 1e6 <= await clock_us(redis) - between_us


async def test_a_worker_is_gone_after_ten_silent_seconds(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)
    worker = c.IngestWorker(worker_id="w", in_hand=3, documents_per_s=2.5, start_time=start)
    reader = LoadStatsReader(redis)
    await reader.report(worker)
    assert list((await reader.read()).workers) == [worker]
    assert (await reader.read()).documents_per_s == 2.5
    assert await reader.silent_workers(60.0) == []
    assert await reader.silent_workers(-60.0) == ["w"]
    monkeypatch.setattr(load_stats, "_SILENT_S", -60.0)
    state = await reader.read()
    assert (list(state.workers), state.documents_per_s) == ([], 0)

"""How often the janitor works, and what it closes and deletes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest
import pytest_asyncio

from index_builder.ingest import (
    janitor as janitor_module,
    job_store as job_store_module,
    keys,
    metrics,
)
from index_builder.ingest.janitor import Janitor
from index_builder.ingest.job_store import JobStore
from index_builder.ingest.load_stats import LoadStatsReader
from index_builder.ingest.records import QueueLimits
from index_builder.ingest.script_functions import JOB_BYTES
from nearline import contract as c
from nearline.errors import NotFound, NotReady
from retrieval.redis_client.connection import Redis, connect
from tests.index_builder.ingest.submissions import (
    ended,
    job_store_of,
    submission,
    take_all,
    worker_of,
)
from tests.redis_server import give_shared_redis, needs_redis

__all__ = ["give_shared_redis"]  # A fixture.


class CountedJanitor(Janitor):
    """Counts its rounds; the first `failing` of them find Redis away."""

    def __init__(self, abandoned_s: float, failing: int = 0) -> None:
        super().__init__(
            cast(Any, None), cast(JobStore, None), cast(LoadStatsReader, self), abandoned_s, 60.0
        )
        self.rounds = self.cleared = 0
        self._failing = failing

    async def read(self) -> None:
        """Stands for the state of the queue."""
        self.rounds += 1
        if self.rounds <= self._failing:
            raise NotReady("away")

    async def clear(self) -> None:
        self.cleared += 1


async def _run(janitor: CountedJanitor, rounds: int) -> None:
    running = asyncio.create_task(janitor.run())
    async with asyncio.timeout(10):
        while janitor.rounds < rounds and not running.done():
            await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(janitor_module, "_EXPORT_INTERVAL_S", 0.0)
    monkeypatch.setattr(metrics, "show", lambda state: None)


async def test_it_clears_at_once_and_then_not_in_every_round() -> None:
    janitor = CountedJanitor(abandoned_s=3_600.0)
    await _run(janitor, 20)
    assert janitor.cleared == 1


async def test_it_clears_in_every_round_if_jobs_are_abandoned_at_once() -> None:
    janitor = CountedJanitor(abandoned_s=0.0)
    await _run(janitor, 20)
    assert janitor.cleared >= 19


async def test_it_goes_on_when_redis_is_back() -> None:
    janitor = CountedJanitor(abandoned_s=3_600.0, failing=5)
    await _run(janitor, 10)
    assert janitor.cleared == 1


@pytest_asyncio.fixture(name="redis")
async def give_redis(shared_redis: str) -> AsyncIterator[Redis]:
    client = connect(shared_redis, timeout_s=10.0)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.mark.service
@needs_redis
async def test_an_abandoned_job_is_closed_and_its_documents_are_still_processed(
    redis: Redis,
) -> None:
    store, stats = job_store_of(redis), LoadStatsReader(redis)
    await store.submit(submission("job", 2, more=True))
    await Janitor(redis, store, stats, 1_000.0, 60.0).clear()
    assert (await store.job("job")).open
    # With this limit, every open job is abandoned.
    await Janitor(redis, store, stats, -1.0, 60.0).clear()
    job = await store.job("job")
    assert (job.open, job.state, job.left) == (False, c.JobState.QUEUED, 2)
    worker = worker_of(redis)
    await worker.settle([ended(one) for one in await take_all(worker)])
    assert (await store.job("job")).state is c.JobState.SUCCEEDED


@pytest.mark.service
@needs_redis
async def test_what_has_expired_is_forgotten_and_the_rest_stays(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, stats = job_store_of(redis), LoadStatsReader(redis)
    monkeypatch.setattr(job_store_module, "_FORGOTTEN", 2)
    for number in range(7):
        await store.submit(submission(f"j{number}"))
    for number in (0, 2, 3, 6):
        await redis.delete(keys.job_key(f"j{number}"))
    start = datetime(2026, 1, 1, tzinfo=UTC)
    worker = c.IngestWorker(worker_id="w", in_hand=0, documents_per_s=1.0, start_time=start)
    await stats.report(worker)
    janitor = Janitor(redis, store, stats, 1_000.0, 60.0)
    await janitor.clear()
    for key in (keys.JOBS, f"{keys.JOBS}:t"):
        assert await redis.zrange(key, 0, -1) == [b"j1", b"j4", b"j5"]
    assert sorted(await redis.hkeys(keys.JOB_TENANTS)) == [b"j1", b"j4", b"j5"]
    sizes = await redis.hgetall(keys.RESULT_BYTES)
    assert set(sizes) == {b"j1", b"j4", b"j5"}
    assert int(await redis.hget(keys.META, "result_bytes") or 0) == sum(map(int, sizes.values()))
    assert await redis.hkeys(keys.WORKERS) == [b"w"]
    monkeypatch.setattr(janitor_module, "_SILENT_S", -60.0)
    await janitor.clear()
    assert await redis.hkeys(keys.WORKERS) == []


@pytest.mark.service
@needs_redis
async def test_beyond_their_limit_the_oldest_finished_jobs_are_dropped(redis: Redis) -> None:
    limits = QueueLimits(result_bytes=10 * JOB_BYTES)
    store, worker = job_store_of(redis, limits), worker_of(redis, limits=limits)
    await store.submit(submission("waits"))
    await worker.take(1)
    for number in range(9):
        await store.submit(submission(f"j{number}"))
        await worker.settle([ended(one) for one in await worker.take(1)])
    await Janitor(redis, store, LoadStatsReader(redis), 1_000.0, 60.0).clear()
    left: Any = await redis.zrange(keys.JOBS, 0, -1)
    # Ten jobs and nine results are too many; what is not finished stays.
    assert left[0] == b"waits" and b"j0" not in left
    with pytest.raises(NotFound):
        await store.job("j0")


@pytest.mark.service
@needs_redis
async def test_results_of_a_large_job_are_counted_but_not_all_kept(redis: Redis) -> None:
    limits = QueueLimits(result_bytes=1_500)
    store, worker = job_store_of(redis, limits), worker_of(redis, limits=limits)
    await store.submit(submission("j", 50))
    await worker.settle([ended(one) for one in await take_all(worker)])
    job = await store.job("j")
    assert (job.state, job.indexed) == (c.JobState.SUCCEEDED, 50)
    results, _ = await store.results("j", 0, 50)
    assert 0 < len(results) < 50
    assert int(await redis.hget(keys.META, "result_bytes") or 0) < 3_500

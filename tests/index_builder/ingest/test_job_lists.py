"""Listing the jobs of a tenant costs Redis what that tenant has, not what others have."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from index_builder.ingest import keys
from index_builder.ingest.job_store import JobStore
from nearline import contract as c
from retrieval.redis_client.connection import Redis, connect
from tests.index_builder.ingest.submissions import job_store_of, submission
from tests.redis_server import give_redis_url, needs_redis

__all__ = ["give_redis_url"]
pytestmark = [pytest.mark.service, needs_redis]
NEWEST_US = 10**17


@pytest_asyncio.fixture(name="redis")
async def give_redis(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url, timeout_s=10.0) as client:
        yield client


async def _list(store: JobStore, tenant: str, state: c.JobState) -> list[str]:
    jobs, _ = await store.jobs(NEWEST_US, {"tenant": tenant}, [state], 10)
    return [one.job_id for one in jobs]


async def test_listing_jobs_costs_the_same_whatever_others_have(redis: Redis) -> None:
    store, costs = job_store_of(redis), []
    for number in range(3):
        await store.submit(submission(f"mine{number}"))
    for others in (0, 300):
        for number in range(others):
            await store.submit(submission(f"other{number}", tenant="other"))
        # The second list has no job, so all that may match is read.
        for state, found in ((c.JobState.QUEUED, 3), (c.JobState.FAILED, 0)):
            await redis.config_resetstat()
            assert len(await _list(store, "t", state)) == found
            costs.append(sum(one["calls"] for one in (await redis.info("commandstats")).values()))
    assert costs[:2] == costs[2:]


async def test_jobs_of_earlier_versions_are_listed_once_the_service_has_cleared(
    redis: Redis,
) -> None:
    store = job_store_of(redis)
    for number in range(3):
        await store.submit(submission(f"j{number}"))
    await redis.delete(keys.JOB_TENANTS, f"{keys.JOBS}:t")
    await store.submit(submission("new"))
    await store.forget_jobs()
    assert await _list(store, "t", c.JobState.QUEUED) == ["new", "j2", "j1", "j0"]

"""Documents are indexed although the clock of Redis is ahead of that of every other process."""

from __future__ import annotations

import secrets
import time

import pytest

from index_builder.ingest import keys
from nearline import contract as c
from nearline.clients import IngestClient
from nearline_cli.local.processes import ingest_process, worker_process
from retrieval.redis_client.connection import connect
from tests.index_builder.ingest.queue_processes import QueueProcesses
from tests.redis_server import needs_redis, valkey

pytestmark = [pytest.mark.service, needs_redis]
AHEAD_S = 600


async def test_submission_times_ten_minutes_ahead_make_no_dead_letters(
    queue_processes: QueueProcesses,
) -> None:
    key = secrets.token_hex(4)
    async with valkey() as url:
        redis = connect(url)
        # The last time that Redis gave; the next ones follow it.
        await redis.hset(keys.META, "clock", str(int((time.time() + AHEAD_S) * 1e6)))
        await redis.aclose()
        async with (
            ingest_process(url) as process,
            worker_process(url, queue_processes.retrieval, ["--poll-s", "0.02"]),
            IngestClient(process.address) as client,
        ):
            items = [c.Item(id=f"{key}-{n}", text="text") for n in range(20)]
            job = await client.submit(items, collection="texts")
            async for seen in client.watch(job.job_id, timeout_s=60.0):
                job = seen
    assert (job.state, job.indexed, job.dead) == (c.JobState.SUCCEEDED, 20, 0)

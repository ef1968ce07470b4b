"""A full queue leaves memory for the log, users and sessions of the same Redis."""

from __future__ import annotations

from pathlib import Path

import pytest

from index_builder.ingest.records import QueueLimits
from nearline import contract as c
from nearline.contract.recommendations import Interaction
from nearline.errors import Overloaded
from retrieval.redis_client.connection import connect
from retrieval.redis_client.durability import Durability
from retrieval.users.states import UserStates
from tests.index_builder.ingest.submissions import (
    ended,
    job_store_of,
    submission,
    take_all,
    worker_of,
)
from tests.redis_server import give_redis_url, needs_redis
from tests.retrieval.changelog.log_writes import change_logs, upsert

__all__ = ["give_redis_url"]
pytestmark = [pytest.mark.service, needs_redis]
MIB = 1 << 20
MAXMEMORY = 64 * MIB


@pytest.mark.parametrize("size", [100, pytest.param(20_000, marks=pytest.mark.long)])
async def test_a_full_queue_is_refused_and_changes_and_interactions_are_not(
    redis_url: str, tmp_path: Path, size: int
) -> None:
    async with (
        connect(redis_url, timeout_s=10.0, retries=0) as client,
        change_logs(tmp_path, redis_url) as logs,
    ):
        await client.config_set("maxmemory", MAXMEMORY)
        empty = int((await client.info("memory"))["used_memory"])
        # The settings allow far more than the server has.
        limits = QueueLimits(units=10**9, tenant_units=10**9, bytes=1 << 40, dead_bytes=1 << 40)
        store, worker = job_store_of(client, limits), worker_of(client, limits=limits)

        async def fill(job: str) -> None:
            with pytest.raises(
                Overloaded, match=r"start more workers.* raise --max-queued-bytes and the maxmemory"
            ):
                for number in range(100_000):
                    items = [c.Item(id=f"{number}-{n}", text="x" * size) for n in range(200)]
                    await store.submit(submission(f"{job}{number}", items))

        await fill("a")
        # Half of it dies, and more comes.
        units = await take_all(worker)
        for at in range(0, len(units) // 2, 100):
            await worker.settle([ended(one, c.IngestOutcome.DEAD) for one in units[at : at + 100]])
        await fill("b")
        used = int((await client.info("memory"))["used_memory"]) - empty
        assert used < MAXMEMORY / 2
        await logs.log("default").append([upsert("a", "x" * MIB)])
        states = UserStates(client, Durability(client))
        await states.record("default", [Interaction(item_id="a", user_id="u")])
        assert (await states.read("default", "u")).events

"""A model test: in any order of operations, each unit is settled once and its job counts it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from index_builder.ingest.load_stats import LoadStatsReader
from index_builder.ingest.records import ALONE_AFTER, Unit
from nearline import contract as c
from nearline.errors import Conflict
from retrieval.redis_client.connection import Redis, connect
from tests.index_builder.ingest.submissions import (
    ended,
    job_store_of,
    submission,
    take_all,
    worker_of,
)
from tests.redis_server import needs_redis, valkey
from tests.scale import scaled

pytestmark = [pytest.mark.service, needs_redis]
OUTCOMES = [c.IngestOutcome.INDEXED, c.IngestOutcome.SUPERSEDED, c.IngestOutcome.DEAD]


class Submit(NamedTuple):
    job: int
    size: int
    tenant: str
    priority: c.JobPriority
    more: bool


class Take(NamedTuple):
    """Takes units; with `lost`, the worker is lost immediately and its units are free again."""

    worker: int
    most: int
    lost: bool


class Settle(NamedTuple):
    worker: int
    size: int
    outcome: c.IngestOutcome


class GiveBack(NamedTuple):
    worker: int
    size: int
    failed: bool


class Cancel(NamedTuple):
    job: int


Step: TypeAlias = Submit | Take | Settle | GiveBack | Cancel
COUNTS = st.integers(1, 5)
WORKERS = st.integers(0, 2)
JOBS = st.integers(0, 3)
STEPS = st.one_of(
    st.builds(
        Submit,
        JOBS,
        COUNTS,
        st.sampled_from(["a", "b"]),
        st.sampled_from(c.JobPriority),
        st.booleans(),
    ),
    st.builds(Take, WORKERS, COUNTS, st.booleans()),
    st.builds(Settle, WORKERS, COUNTS, st.sampled_from(OUTCOMES)),
    st.builds(GiveBack, WORKERS, COUNTS, st.booleans()),
    st.builds(Cancel, JOBS),
)


@dataclass
class World:
    """The state of a queue, and the test's model of it. ends: By job and place."""

    redis: Redis
    submitted: Counter[str] = field(default_factory=Counter)
    closed: set[str] = field(default_factory=set)
    lane: dict[str, tuple[str, c.JobPriority]] = field(default_factory=dict)
    ends: dict[tuple[str, int], c.IngestOutcome] = field(default_factory=dict)
    hands: list[list[Unit]] = field(default_factory=lambda: [[], [], []])
    failures: Counter[tuple[str, int]] = field(default_factory=Counter)

    async def do(self, step: Step) -> None:
        if isinstance(step, Submit):
            await self._submit(step)
        elif isinstance(step, Cancel):
            if self.submitted[f"j{step.job}"]:
                await job_store_of(self.redis).close(f"j{step.job}", cancel=True)
                self.closed.add(f"j{step.job}")
        elif isinstance(step, Take):
            lease_s = 0.0 if step.lost else 1_000.0
            worker = worker_of(self.redis, f"w{step.worker}", lease_s)
            taken = await worker.take(step.most)
            assert len(taken) <= step.most
            assert all(one.losses < ALONE_AFTER for one in taken)
            if not taken and (suspect := await worker.take_suspect()) is not None:
                assert suspect.losses >= ALONE_AFTER
                taken = [suspect]
            assert not self.ends.keys() & {(one.job_id, one.place) for one in taken}
            assert all(one.failed == self.failures[one.job_id, one.place] for one in taken)
            self.hands[step.worker] += taken
        else:
            hand = self.hands[step.worker]
            units, hand[:] = hand[: step.size], hand[step.size :]
            if isinstance(step, GiveBack):
                await self._give_back(step, units)
            else:
                await self._settle(step.worker, units, step.outcome)

    async def _submit(self, step: Submit) -> None:
        job_id, known = f"j{step.job}", self.submitted[f"j{step.job}"]
        asked = submission(
            job_id,
            step.size,
            tenant=step.tenant,
            priority=step.priority,
            offset=known,
            more=step.more,
        )
        lane = self.lane.setdefault(job_id, (step.tenant, step.priority))
        if job_id in self.closed or lane != (step.tenant, step.priority):
            with pytest.raises(Conflict):
                await job_store_of(self.redis).submit(asked)
            return
        await job_store_of(self.redis).submit(asked)
        # Repeated, as if the reply was lost.
        await job_store_of(self.redis).submit(asked)
        self.submitted[job_id] += step.size
        if not step.more:
            self.closed.add(job_id)

    async def _settle(self, worker: int, units: Sequence[Unit], outcome: c.IngestOutcome) -> None:
        done = await worker_of(self.redis, f"w{worker}").settle(
            [ended(one, outcome) for one in units]
        )
        first = {(one.unit.job_id, one.unit.place) for one in done}
        # Two workers may have held it in turn, or the same one twice.
        wanted = {(one.job_id, one.place) for one in units} - self.ends.keys()
        assert first == wanted and len(done) == len(first)
        self.ends |= dict.fromkeys(first, outcome)

    async def _give_back(self, step: GiveBack, units: Sequence[Unit]) -> None:
        distinct = list({one.name: one for one in units}.values())
        gave = await worker_of(self.redis, f"w{step.worker}").give_back(
            distinct, failed=step.failed
        )
        assert gave <= len(distinct)
        if step.failed:
            # Redis tells which units the worker still holds, as a worker would ask.
            for one in distinct:
                said = await self.redis.hget("nl:{ingest}:tries", one.name)
                self.failures[one.job_id, one.place] = int((said or b"0").split()[0])

    async def check(self) -> None:
        """Compares the queue with the model."""
        state = await LoadStatsReader(self.redis).read()
        assert state.lag == sum(self.submitted.values()) - len(self.ends)
        for job_id, count in self.submitted.items():
            job = await job_store_of(self.redis).job(job_id)
            ends = Counter(one for (name, _), one in self.ends.items() if name == job_id)
            assert (job.sources, job.documents, job.left) == (count, count, count - ends.total())
            assert job.open == (job_id not in self.closed)
            told = (job.indexed, job.superseded, job.dead, job.cancelled)
            assert told == tuple(ends[one] for one in (*OUTCOMES, c.IngestOutcome.CANCELLED))
            assert job.ended == (job_id in self.closed and not job.left)
            results, _ = await job_store_of(self.redis).results(job_id, 0, 100)
            assert {(job_id, one.place): one.outcome for one in results} == {
                key: one for key, one in self.ends.items() if key[0] == job_id
            }
        letters, _ = await job_store_of(self.redis).letters.page("", {}, 1_000, with_source=False)
        dead = [(one.job_id, one.result.place) for one in letters]
        assert sorted(dead) == sorted(
            key for key, one in self.ends.items() if one is c.IngestOutcome.DEAD
        )

    async def finish(self) -> None:
        """Gives back and settles everything left; the queue is empty afterwards."""
        for number, hand in enumerate(self.hands):
            distinct = list({one.name: one for one in hand}.values())
            await worker_of(self.redis, f"w{number}").give_back(distinct, failed=False)
        units = await take_all(worker_of(self.redis, "last"))
        assert {(one.job_id, one.place) for one in units} == {
            (job_id, place)
            for job_id, count in self.submitted.items()
            for place in range(count)
            if (job_id, place) not in self.ends
        }
        cancelled = await worker_of(self.redis, "last").begin(one.job_id for one in units)
        for one in units:
            gone = one.job_id in cancelled
            outcome = c.IngestOutcome.CANCELLED if gone else c.IngestOutcome.INDEXED
            self.hands[0] = [one]
            await self._settle(0, [one], outcome)
        await self.check()
        found: Any = await self.redis.keys("*")
        left = {one.decode() for one in found}
        kept = {"nl:{ingest}:meta", "nl:{ingest}:jobs", "nl:{ingest}:open", "nl:{ingest}:dead"}
        kept |= {"nl:{ingest}:dead:sources", "nl:{ingest}:result_bytes"}
        kept |= {"nl:{ingest}:job_tenants"}
        kept |= {f"nl:{{ingest}}:jobs:{tenant}" for tenant, _ in self.lane.values()}
        kept |= {f"nl:{{ingest}}:job:{one}" for one in self.submitted}
        kept |= {f"nl:{{ingest}}:results:{one}" for one in self.submitted}
        assert left <= kept
        assert await self.redis.hmget("nl:{ingest}:meta", "units", "bytes") in (
            [b"0", b"0"],
            [None, None],
        )


def test_each_unit_is_settled_exactly_once() -> None:
    with asyncio.Runner() as runner:

        async def live(url: str, steps: Sequence[Step]) -> None:
            redis = connect(url, timeout_s=10.0)
            await redis.flushall()
            world = World(redis)
            for step in steps:
                await world.do(step)
                await world.check()
            await world.finish()
            await redis.aclose()

        @settings(
            max_examples=scaled(40, nightly=400),
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        )
        @given(steps=st.lists(STEPS, min_size=1, max_size=25))
        def check(steps: Sequence[Step]) -> None:
            runner.run(live(url, steps))

        server = valkey()
        url = runner.run(server.__aenter__())
        try:
            check()
        finally:
            runner.run(server.__aexit__(None, None, None))

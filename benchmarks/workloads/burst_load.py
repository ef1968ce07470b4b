"""Load of `nearline bench burst`: documents at a steady rate with a burst; watches the queue."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

from nearline import contract as c
from nearline.clients import IngestClient, RetrievalClient
from nearline.retry import retry_while_overloaded
from nearline_cli.evaluate.open_loop import run_open_loop
from nearline_cli.local.autoscaler import ScalingEvent, WorkerPool

_TICK_S = 0.1
_SAMPLE_S = 0.5
# Workers may take this long to stop, in addition to their idle time.
_STOP_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BurstLoad:
    """Arrival of documents in an open loop: steady, `factor` times faster, steady, none."""

    rate: float
    factor: float
    steady_s: float
    burst_s: float
    after_s: float

    @property
    def seconds(self) -> float:
        """Total duration."""
        return self.steady_s + self.burst_s + self.after_s

    def due(self, at_s: float) -> int:
        """Returns how many documents should have been submitted by a time."""
        at_s = min(at_s, self.seconds)
        in_burst_s = min(max(at_s - self.steady_s, 0.0), self.burst_s)
        return round(self.rate * (at_s + (self.factor - 1) * in_burst_s))


@dataclass(frozen=True, slots=True)
class QueueSample:
    """State of the queue at a time.

    t: Seconds from the start of the load. done: Documents that have ended.
    """

    t: float
    submitted: int
    done: int
    lag: int
    waiting: int
    workers: int
    oldest_age_s: float


@dataclass(slots=True)
class BurstRun:
    """Progress of a run.

    jobs: Ids of the documents of each job.
    """

    began: float = 0.0
    submitted: int = 0
    samples: list[QueueSample] = field(default_factory=list)
    scalings: list[tuple[float, ScalingEvent]] = field(default_factory=list)
    jobs: dict[str, list[str]] = field(default_factory=dict)

    def now(self) -> float:
        """Returns the seconds since the start of the load."""
        return asyncio.get_running_loop().time() - self.began


def numbered_items(prefix: str, first: int, end: int) -> list[c.Item]:
    """Returns the documents with these numbers."""
    return [
        c.Item(id=f"{prefix}-{number:07d}", text=f"document {number}")
        for number in range(first, end)
    ]


async def run_burst(
    ingest: IngestClient, load: BurstLoad, run: BurstRun, pool: WorkerPool, idle_s: float
) -> None:
    """Submits the load, and watches until no worker is left."""
    run.began = asyncio.get_running_loop().time()
    sampling = asyncio.create_task(_sample(ingest, run))
    try:
        await _submit(ingest, load, run)
        busy_s = run.now()
        while not sampling.done() and run.now() < busy_s + idle_s + _STOP_S:
            await asyncio.sleep(_SAMPLE_S)
            latest = run.samples[-1]
            if latest.lag:
                busy_s = run.now()
            elif not (pool.size or latest.workers):
                break
    finally:
        sampling.cancel()
        await asyncio.wait((sampling,))
    if not sampling.cancelled():
        sampling.result()


async def _submit(ingest: IngestClient, load: BurstLoad, run: BurstRun) -> None:
    """Submits the due documents at every tick, in an open loop."""

    async def send(first: int, end: int) -> None:
        items = numbered_items("burst", first, end)
        job_id = c.new_job_id()
        await retry_while_overloaded(lambda: ingest.submit(items, job_id=job_id, timeout_s=30.0))
        run.jobs[job_id] = [item.id for item in items]
        run.submitted += len(items)

    async def submit_tick(tick: int, _: float) -> None:
        sent, due = load.due(tick * _TICK_S), load.due((tick + 1) * _TICK_S)
        async with asyncio.TaskGroup() as sending:
            for first in range(sent, due, c.MAX_BATCH):
                sending.create_task(send(first, min(due, first + c.MAX_BATCH)))

    ticks = range(math.ceil(load.seconds / _TICK_S))
    await run_open_loop(1 / _TICK_S, ticks, submit_tick, start=run.began + _TICK_S)


async def _sample(ingest: IngestClient, run: BurstRun) -> None:
    done = 0
    while True:
        submitted = run.submitted
        queue = await ingest.queue()
        # Documents submitted during this request may already be part of the lag.
        done = max(done, submitted - queue.lag)
        run.samples.append(
            QueueSample(
                t=round(run.now(), 2),
                submitted=submitted,
                done=done,
                lag=queue.lag,
                waiting=queue.waiting,
                workers=len(queue.workers),
                oldest_age_s=round(queue.oldest_age_s, 2),
            )
        )
        await asyncio.sleep(len(run.samples) * _SAMPLE_S - run.now())


async def count_outcomes(
    ingest: IngestClient, router: RetrievalClient, run: BurstRun
) -> dict[str, int]:
    """Counts the outcomes of the documents, and those missing at the router."""
    counts = {"indexed": 0, "dead": 0, "lost": 0}
    for job_id, ids in run.jobs.items():
        job = await ingest.job(job_id)
        counts["indexed"] += job.indexed
        counts["dead"] += job.dead
        reply = await router.get_items(ids, (), min_watermark=job.watermark)
        counts["lost"] += len(ids) - len(reply.items)
    return counts

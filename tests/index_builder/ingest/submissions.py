"""Helpers of queue tests: submissions, workers and settlements."""

from __future__ import annotations

from collections.abc import Sequence

from index_builder.ingest.job_store import JobStore
from index_builder.ingest.lease_queue import LeaseQueue
from index_builder.ingest.records import LogPosition, QueueLimits, Settlement, Submission, Unit
from nearline import contract as c
from retrieval.redis_client.connection import Redis
from retrieval.redis_client.durability import Durability

LOG = "ab" * 16


def job_store_of(client: Redis, limits: QueueLimits | None = None) -> JobStore:
    return JobStore(client, Durability(client), limits or QueueLimits())


def worker_of(
    client: Redis, name: str = "w", lease_s: float = 1_000.0, limits: QueueLimits | None = None
) -> LeaseQueue:
    """Returns the queue of a worker; with a lease of 0, it counts as lost immediately."""
    return LeaseQueue(client, name, lease_s, limits or QueueLimits())


def submission(
    job_id: str,
    sources: int | Sequence[c.IngestSource] = 1,
    *,
    tenant: str = "t",
    priority: c.JobPriority = c.JobPriority.NORMAL,
    offset: int = 0,
    more: bool = False,
    ttl_s: float = 1_000.0,
) -> Submission:
    if isinstance(sources, int):
        sources = [c.Item(id=f"{job_id}-{offset + n}", text="text") for n in range(sources)]
    return Submission(
        job_id=job_id,
        sources=sources,
        collection="default",
        tenant=tenant,
        priority=priority,
        callback_id="callback",
        offset=offset,
        more=more,
        ttl_s=ttl_s,
    )


def ended(unit: Unit, outcome: c.IngestOutcome = c.IngestOutcome.INDEXED) -> Settlement:
    """Returns the settlement of a unit; an indexed one has its place as version, in partition 5."""
    good = outcome is c.IngestOutcome.INDEXED
    bad = outcome is c.IngestOutcome.DEAD
    return Settlement(
        unit=unit,
        outcome=outcome,
        document_id=unit.source.id if isinstance(unit.source, c.Item) else "",
        indexed=LogPosition(LOG, 5, unit.place + 1) if good else None,
        reason="INVALID_REQUEST" if bad else "",
        message="it is bad" if bad else "",
    )


async def take_all(worker: LeaseQueue, most: int = 100_000) -> list[Unit]:
    """Takes units until none is left, suspects last."""
    taken: list[Unit] = []
    while units := await worker.take(most - len(taken)):
        taken += units
    while (suspect := await worker.take_suspect()) is not None:
        taken.append(suspect)
    return taken

"""The keys of the queue in Redis.

All keys share one hash tag: scripts access several at once, so in a Redis Cluster they must be in
one slot. A *unit* is the smallest piece of work: a document, or a file of documents. The units of
one tenant and priority form a stream, their *lane*; a unit is named by lane and entry.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from nearline.contract import JobPriority

_PREFIX = "nl:{ingest}"
GROUP: Final = "workers"
# Highest first: a tenant's lane is read when those before it are empty.
PRIORITIES: Final = (JobPriority.HIGH, JobPriority.NORMAL, JobPriority.LOW)

# Hash: units and bytes in the queue, clock (the last submission time assigned, microseconds), turn
# (that of the tenant served last), dead_bytes (of the kept sources of dead letters), dead_from (the
# last dead letter whose source was dropped), result_bytes (the sum of RESULT_BYTES).
META: Final = f"{_PREFIX}:meta"
# Sorted set: tenants with units waiting, by turn: the number of units served to each, starting at
# the turn at which it joined.
TENANTS: Final = f"{_PREFIX}:tenants"
# Hash: units in the queue, by tenant.
LOADS: Final = f"{_PREFIX}:loads"
# Sorted set: units held by a worker, by the end of the lease, milliseconds.
LEASES: Final = f"{_PREFIX}:leases"
# Sorted set: units waiting for a retry, by the time of the retry, milliseconds.
DELAYED: Final = f"{_PREFIX}:delayed"
# Sorted set: units with which `ALONE_AFTER` workers were lost, by the time they were found so,
# milliseconds; a worker takes one only if it holds nothing else.
SUSPECTS: Final = f"{_PREFIX}:suspects"
# Hash by unit: number of failures and of lost workers, as in "2 1"; 0 0 if absent.
TRIES: Final = f"{_PREFIX}:tries"
# Sorted set: jobs by creation time, microseconds; with ":" and a tenant after it, its own ones.
JOBS: Final = f"{_PREFIX}:jobs"
# Hash by job: its tenant.
JOB_TENANTS: Final = f"{_PREFIX}:job_tenants"
# Sorted set: jobs open for more sources, by the time of the last request, microseconds.
OPEN: Final = f"{_PREFIX}:open"
# Stream: dead letters, without their sources.
DEAD: Final = f"{_PREFIX}:dead"
# Hash by dead letter: its source, unless it was dropped.
DEAD_SOURCES: Final = f"{_PREFIX}:dead:sources"
# Hash by job: bytes of its hash and its results, about.
RESULT_BYTES: Final = f"{_PREFIX}:result_bytes"
# Hash by worker: its last report, JSON.
WORKERS: Final = f"{_PREFIX}:workers"


class Lane(NamedTuple):
    """The units of one tenant and priority."""

    priority: JobPriority
    tenant: str

    @property
    def key(self) -> str:
        """Key of its stream."""
        return f"{_PREFIX}:lane:{self.priority.value}:{self.tenant}"


def lanes_of(tenant: str) -> list[Lane]:
    """Returns the lanes of a tenant, highest priority first."""
    return [Lane(priority, tenant) for priority in PRIORITIES]


def unit_name(lane: Lane, entry: str) -> str:
    """Returns the name of a unit."""
    return f"{lane.priority.value} {entry} {lane.tenant}"


def unit_of(name: str) -> tuple[Lane, str]:
    """Returns the lane and the entry of a unit by its name."""
    priority, entry, tenant = name.split(" ", 2)
    return Lane(JobPriority(priority), tenant), entry


def job_key(job_id: str) -> str:
    """Returns the key of a job's hash."""
    return f"{_PREFIX}:job:{job_id}"


def results_key(job_id: str) -> str:
    """Returns the key of the hash of a job's results, by place."""
    return f"{_PREFIX}:results:{job_id}"

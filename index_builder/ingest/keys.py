"""The names under which the queue lies in Redis.

All carry one hash tag: a script looks at several of them together, and in a Redis Cluster they
share a slot. A *unit* is what a worker takes at once: a document, or a file with documents. Units
of a tenant and a priority lie in one stream, their *lane*, and are named by lane and entry.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from nearline.contract import JobPriority

_PREFIX = "nl:{ingest}"
GROUP: Final = "workers"
# In order: a tenant's lane is looked into when those before it are empty.
PRIORITIES: Final = (JobPriority.HIGH, JobPriority.NORMAL, JobPriority.LOW)

# Hash: units and bytes in the queue, clock (the last place in time given out, microseconds), turn
# (that of the tenant served last).
META: Final = f"{_PREFIX}:meta"
# Sorted set: tenants with units that nobody has taken, by turn: units that each was served so far,
# counted from the turn at which it came.
TENANTS: Final = f"{_PREFIX}:tenants"
# Hash: units in the queue, by tenant.
LOADS: Final = f"{_PREFIX}:loads"
# Sorted set: units that a worker holds, by the time at which its lease ends, milliseconds.
LEASES: Final = f"{_PREFIX}:leases"
# Sorted set: units that are to be tried again, by the time at which that may be, milliseconds.
DELAYED: Final = f"{_PREFIX}:delayed"
# Hash, by unit: how often it failed, and how often its worker was lost, "2 1"; 0 0 where it is not.
TRIES: Final = f"{_PREFIX}:tries"
# Sorted set: jobs by the time of their creation, microseconds.
JOBS: Final = f"{_PREFIX}:jobs"
# Sorted set: jobs that may get more, by the time of the last request, microseconds.
OPEN: Final = f"{_PREFIX}:open"
# Stream: dead letters.
DEAD: Final = f"{_PREFIX}:dead"
# Hash, by worker: what it last said of itself, JSON.
WORKERS: Final = f"{_PREFIX}:workers"


class Lane(NamedTuple):
    """The units of one tenant and priority."""

    priority: JobPriority
    tenant: str

    @property
    def key(self) -> str:
        """Name of its stream."""
        return f"{_PREFIX}:lane:{self.priority.value}:{self.tenant}"


def lanes_of(tenant: str) -> list[Lane]:
    """Returns the lanes of a tenant, in order."""
    return [Lane(priority, tenant) for priority in PRIORITIES]


def unit_name(lane: Lane, entry: str) -> str:
    """Names a unit."""
    return f"{lane.priority.value} {entry} {lane.tenant}"


def unit_of(name: str) -> tuple[Lane, str]:
    """Returns lane and entry of a unit."""
    priority, entry, tenant = name.split(" ", 2)
    return Lane(JobPriority(priority), tenant), entry


def job_key(job_id: str) -> str:
    """Names the hash of a job."""
    return f"{_PREFIX}:job:{job_id}"


def results_key(job_id: str) -> str:
    """Names the hash of a job's results, by place."""
    return f"{_PREFIX}:results:{job_id}"

"""Records exchanged between the queue and its workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from index_builder.ingest.keys import Lane, unit_name
from nearline.contract import IngestOutcome, IngestSource, JobPriority

# A unit is a suspect after this many workers were lost with it: a worker that holds it holds
# nothing else, so that it takes no others with it if it kills workers.
ALONE_AFTER: Final = 3
# After as many losses again while held alone, it becomes a dead letter.
MAX_LOSSES: Final = ALONE_AFTER + 3


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """Capacity of the queue.

    units: Sources and documents.
    tenant_units: Sources and documents of one tenant.
    bytes: Size of all sources, and what Redis needs for units and dead letters besides.
    dead_bytes: Size of the kept sources of dead letters.
    result_bytes: Size of kept jobs and results.
    """

    units: int = 200_000
    tenant_units: int = 100_000
    bytes: int = 128 << 20
    dead_bytes: int = 32 << 20
    result_bytes: int = 32 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """Sources submitted together; see SubmitRequest. ttl_s: How long results are kept."""

    job_id: str
    sources: Sequence[IngestSource]
    collection: str
    tenant: str
    priority: JobPriority
    callback_id: str
    ttl_s: float
    offset: int = 0
    more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Unit:
    """A source held by a worker.

    place: Index in its job.
    as_of: When it was submitted; changes made later take precedence.
    error: Why it is invalid, found when its file was read; empty if nothing is known.
    failed: Number of failed attempts.
    losses: Number of workers that were lost while they held it.
    trace: Traceparent of its submission; empty if that was not recorded.
    """

    lane: Lane
    entry: str
    job_id: str
    collection: str
    place: int
    as_of: datetime
    source: IngestSource
    error: str = ""
    failed: int = 0
    losses: int = 0
    trace: str = ""

    @property
    def name(self) -> str:
        """Its unique name in the queue."""
        return unit_name(self.lane, self.entry)


class LogPosition(NamedTuple):
    """Position of a change in the change log: log, partition, and version of the change."""

    log_id: str
    partition: int
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """The outcome of a unit.

    indexed: Its position in the change log; None if it was not written.
    reason, message: Why it is a dead letter; otherwise empty. The message of an expanded file may
        have notes on how it was read.
    """

    unit: Unit
    outcome: IngestOutcome
    document_id: str
    indexed: LogPosition | None = None
    reason: str = ""
    message: str = ""


class ExpansionProgress(NamedTuple):
    """How many documents of a file are in the queue. full: Whether the queue is full for now."""

    read: int
    full: bool

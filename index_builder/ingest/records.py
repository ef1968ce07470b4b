"""What passes between the queue and its workers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from index_builder.ingest.keys import Lane, unit_name
from nearline.contract import IngestOutcome, IngestSource


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """How much the queue takes.

    units: Sources and documents. tenant_units: Of one tenant. bytes: Of all sources.
    """

    units: int = 200_000
    tenant_units: int = 100_000
    bytes: int = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Unit:
    """A source that a worker holds.

    place: In its job. as_of: When it was submitted: what was changed later stays.
    error: Why it can be no document, known when its file was read; empty: nothing is known.
    failed: How often it was tried and failed. losses: How often a worker was lost that held it.
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

    @property
    def name(self) -> str:
        """Names it among all."""
        return unit_name(self.lane, self.entry)


class LogPosition(NamedTuple):
    """Where the change log has a document. partition, version: Its change in the log."""

    log_id: str
    partition: int
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """The end of a unit.

    indexed: Where the log has it; None: it has none of it.
    reason, message: Why it is dead; empty where it is not.
    """

    unit: Unit
    outcome: IngestOutcome
    document_id: str
    indexed: LogPosition | None = None
    reason: str = ""
    message: str = ""


class ExpansionProgress(NamedTuple):
    """How far the documents of a file are in the queue. full: It takes no more for now."""

    read: int
    full: bool

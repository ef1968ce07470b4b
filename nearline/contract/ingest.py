"""The ingest queue: sources, jobs, results, dead letters, and the protocol of the service."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Protocol, TypeAlias

from nearline.contract.records import Item
from nearline.contract.terms import DEFAULT_COLLECTION

DEFAULT_TENANT = "default"
MAX_FILE_BYTES = 16 << 20
MAX_JOB_ID = 64
MAX_TENANT_BYTES = 128
MAX_CALLBACK_BYTES = 512
MAX_RESULT_TTL_S = 30 * 86_400.0


class JobPriority(Enum):
    """Priority among the jobs of a tenant; see JobPriority in ingest.proto."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class JobState(Enum):
    """State of a job; see JobState in ingest.proto."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    PARTLY_FAILED = "partly_failed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class IngestOutcome(Enum):
    """Outcome of a document; see IngestOutcome in ingest.proto."""

    INDEXED = "indexed"
    SUPERSEDED = "superseded"
    DEAD = "dead"
    CANCELLED = "cancelled"
    EXPANDED = "expanded"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file, sent whole; its name's extension determines the reader."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class SourceUrl:
    """A file that workers fetch."""

    url: str


IngestSource: TypeAlias = Item | SourceFile | SourceUrl


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Documents submitted together; see Job in ingest.proto. Times are UTC."""

    job_id: str
    state: JobState
    create_time: datetime
    update_time: datetime
    collection: str = DEFAULT_COLLECTION
    tenant: str = DEFAULT_TENANT
    priority: JobPriority = JobPriority.NORMAL
    callback_id: str = ""
    sources: int = 0
    documents: int = 0
    indexed: int = 0
    superseded: int = 0
    dead: int = 0
    cancelled: int = 0
    left: int = 0
    open: bool = False
    finish_time: datetime | None = None
    expire_time: datetime | None = None
    watermark: bytes = b""

    @property
    def ended(self) -> bool:
        """Whether the job is finished."""
        return self.finish_time is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """A page of jobs, newest first. token: Token of the next page; empty at the end."""

    jobs: Sequence[Job]
    token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestResult:
    """The result of a document; see IngestResult in ingest.proto."""

    place: int
    document_id: str
    outcome: IngestOutcome
    time: datetime
    version: int = 0
    attempts: int = 1
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultPage:
    """A page of results, ordered by place. token: Token of the next page; empty at the end."""

    results: Sequence[IngestResult]
    token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A document that cannot be processed. source: None unless requested."""

    letter_id: str
    job_id: str
    collection: str
    tenant: str
    result: IngestResult
    source: IngestSource | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterPage:
    """A page of dead letters, oldest first. token: Token of the next page; empty at the end."""

    letters: Sequence[DeadLetter]
    token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestWorker:
    """One worker; see IngestWorker in ingest.proto."""

    worker_id: str
    in_hand: int
    documents_per_s: float
    start_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """The state of the queue, for scaling workers; see GetQueueResponse in ingest.proto."""

    waiting: int = 0
    in_hand: int = 0
    delayed: int = 0
    dead: int = 0
    oldest_age_s: float = 0.0
    documents_per_s: float = 0.0
    workers: Sequence[IngestWorker] = ()
    bytes: int = 0

    @property
    def lag(self) -> int:
        """Sources and documents that are still to be processed or retried."""
        return self.waiting + self.in_hand + self.delayed


def new_job_id() -> str:
    """Returns a new job id: the UTC time to the second and 8 random hex digits."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


class Ingestor(Protocol):
    """Accepts documents for ingestion; satisfied by the service object and by the client.

    Every method raises NotReady if Redis is down (with retry_after_s), NotFound if a job does not
    exist or has expired, and InvalidRequest.
    """

    async def submit(
        self,
        sources: Sequence[IngestSource],
        *,
        collection: str = DEFAULT_COLLECTION,
        tenant: str = "",
        priority: JobPriority = JobPriority.NORMAL,
        callback_id: str = "",
        job_id: str = "",
        offset: int = 0,
        more: bool = False,
        result_ttl_s: float | None = None,
        timeout_s: float | None = None,
    ) -> Job:
        """Submits 1..1024 sources; returns when they are durable.

        See SubmitRequest in ingest.proto.

        Raises: NotFound: the collection does not exist. Overloaded: the queue or the tenant's share
            of it is full (with retry_after_s). FeedBlocked: Redis is nearly full. Conflict:
            `offset` differs from the job's number of sources, or the job has ended.
        """
        ...

    async def job(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """Returns a job."""
        ...

    def watch(self, job_id: str, *, timeout_s: float | None = None) -> AsyncIterator[Job]:
        """Yields a job immediately and after each change, until it has ended."""
        ...

    async def jobs(
        self,
        *,
        tenant: str = "",
        collection: str = "",
        callback_id: str = "",
        states: Collection[JobState] = (),
        page_size: int = 0,
        token: str = "",
        timeout_s: float | None = None,
    ) -> JobPage:
        """Lists jobs, newest first."""
        ...

    async def cancel(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """Cancels the documents of a job that are not processed yet."""
        ...

    async def results(
        self, job_id: str, *, page_size: int = 0, token: str = "", timeout_s: float | None = None
    ) -> ResultPage:
        """Lists the results of the documents of a job."""
        ...

    async def dead_letters(
        self,
        *,
        tenant: str = "",
        job_id: str = "",
        with_source: bool = False,
        page_size: int = 0,
        token: str = "",
        timeout_s: float | None = None,
    ) -> DeadLetterPage:
        """Lists dead letters, oldest first."""
        ...

    async def requeue(
        self, letter_ids: Sequence[str], *, job_id: str = "", timeout_s: float | None = None
    ) -> Job:
        """Puts 1..1024 dead letters of one collection and tenant back into the queue.

        job_id: Id of the new job; a repeated call returns the same job.

        Raises: NotFound: a dead letter does not exist; none was put back.
        """
        ...

    async def delete_dead_letters(
        self, letter_ids: Sequence[str], *, timeout_s: float | None = None
    ) -> int:
        """Deletes 1..1024 dead letters; returns how many existed."""
        ...

    async def queue(self, *, timeout_s: float | None = None) -> QueueState:
        """Returns the state of the queue."""
        ...

"""Settings of the queue: of its door, section `ingest`, and of its workers, section `worker`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from index_builder.ingest.records import QueueLimits
from nearline.errors import SettingsError
from nearline.settings import ServerSettings

_REDIS = "Redis that holds the queue, redis://host:port/0; needed."


class QueueSettings(ServerSettings):
    """Settings that the door and its workers share."""

    redis: str = Field("", description=_REDIS)
    max_queued: int = Field(
        200_000, ge=1, description="Sources and documents that the queue takes before it refuses."
    )
    max_queued_per_tenant: int = Field(100_000, ge=1, description="The same, of one tenant.")
    max_queued_bytes: int = Field(
        1 << 30, ge=1 << 20, description="Bytes of sources that the queue takes."
    )

    def limits(self) -> QueueLimits:
        """Returns how much the queue takes."""
        return QueueLimits(
            units=self.max_queued,
            tenant_units=self.max_queued_per_tenant,
            bytes=self.max_queued_bytes,
        )


class IngestSettings(QueueSettings):
    """Settings of the ingest service."""

    section: ClassVar[str] = "ingest"

    result_ttl_s: float = Field(
        86_400.0,
        ge=1,
        le=30 * 86_400,
        description="Seconds that a job and its results are kept once it has ended, where its "
        "submission names no other.",
    )
    dead_letter_ttl_s: float = Field(
        30 * 86_400.0, ge=60, description="Seconds that a dead letter is kept."
    )
    abandoned_s: float = Field(
        86_400.0,
        ge=1,
        description="Seconds after which a job that was to get more sources, and got none, is "
        "taken to be complete.",
    )
    log_replicas: int = Field(
        0, ge=0, le=16, description="Replicas of Redis that must have a submission on disk, too."
    )


class WorkerSettings(QueueSettings):
    """Settings of a worker; its port answers gRPC health and nothing else."""

    section: ClassVar[str] = "worker"

    retrieval: str = Field("", description="Router that indexes the documents, host:port; needed.")
    batch: int = Field(64, ge=1, le=1024, description="Documents taken at once.")
    in_flight: int = Field(4, ge=1, le=64, description="Batches worked on at the same time.")
    lease_s: float = Field(
        15.0,
        ge=1,
        le=3_600,
        description="Seconds after which what a worker holds goes to another one, unless it says "
        "that it is still at it.",
    )
    notice_s: float = Field(
        10.0,
        ge=0,
        le=600,
        description="Seconds to end what it holds when it is told to stop; what it has not ended "
        "by then it gives back.",
    )
    attempts: int = Field(
        5, ge=1, le=100, description="Times that a document may fail before it is a dead letter."
    )
    backoff_s: float = Field(
        1.0,
        ge=0,
        le=3_600,
        description="Seconds until a document that failed is tried again, doubled each time, half "
        "of it at random.",
    )
    max_backoff_s: float = Field(300.0, ge=0, le=86_400, description="The longest of these.")
    poll_s: float = Field(0.1, gt=0, le=60, description="Seconds between looks at an empty queue.")
    sources: str = Field(
        "",
        description="What addresses must begin with for workers to read them, separated by commas: "
        "file:///data/in/, s3://bucket/in/, https://host/path/. Empty: none is read.",
    )
    parse_s: float = Field(
        60.0, gt=0, le=3_600, description="Seconds that reading an HTML or PDF file may take."
    )

    def prefixes(self) -> tuple[str, ...]:
        """Returns what addresses must begin with.

        Raises: SettingsError: one has no scheme, or does not end where a folder does.
        """
        given = tuple(one for one in (part.strip() for part in self.sources.split(",")) if one)
        for one in given:
            # Without the end, https://host would allow https://host.of.somebody.else.
            if "://" not in one or not one.endswith("/"):
                raise SettingsError(
                    f"sources names {one!r}; write each as scheme://place/ with a slash at its end"
                )
        return given

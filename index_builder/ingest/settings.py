"""Settings of the queue: section `ingest` for the service, section `worker` for the workers."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from index_builder.ingest.records import QueueLimits
from nearline.errors import SettingsError
from nearline.settings import ServerSettings

_REDIS = "Redis that holds the queue, redis://host:port/0; required."


class QueueSettings(ServerSettings):
    """Settings that the ingest service and its workers share."""

    redis: str = Field("", description=_REDIS)
    max_queued: int = Field(
        200_000, ge=1, description="Sources and documents that the queue holds at most."
    )
    max_queued_per_tenant: int = Field(
        100_000,
        ge=1,
        description="Sources and documents of one tenant that the queue holds at most.",
    )
    max_queued_bytes: int = Field(
        128 << 20,
        ge=1 << 20,
        description="Bytes that waiting sources and the entries of dead letters take at most, "
        "half of it for one tenant; never more than a quarter of the maxmemory of Redis.",
    )
    max_dead_letter_bytes: int = Field(
        32 << 20,
        ge=0,
        description="Bytes of sources that dead letters keep at most; the oldest are dropped "
        "first, and their letters stay. Never more than 1/16 of the maxmemory of Redis.",
    )
    max_result_bytes: int = Field(
        32 << 20,
        ge=1 << 20,
        description="Bytes of finished jobs and their results that are kept at most; beyond it, "
        "the oldest are dropped before they expire. Never more than 1/16 of the maxmemory of "
        "Redis.",
    )

    feed_block_redis: float = Field(
        0.85,
        gt=0,
        le=1,
        description="Submissions, and the rows that workers add, wait while more than this share "
        "of the maxmemory of Redis (without one, of the memory of its machine) is used, and less "
        "than 1 GiB is free. 1 disables this.",
    )

    def queue_limits(self) -> QueueLimits:
        """Returns the capacity of the queue."""
        return QueueLimits(
            units=self.max_queued,
            tenant_units=self.max_queued_per_tenant,
            bytes=self.max_queued_bytes,
            dead_bytes=self.max_dead_letter_bytes,
            result_bytes=self.max_result_bytes,
        )


class IngestSettings(QueueSettings):
    """Settings of the ingest service."""

    section: ClassVar[str] = "ingest"

    retrieval: str = Field(
        "",
        description="Router that knows the collections, host:port: submissions to one that does "
        "not exist are refused. Empty: all are accepted, and their documents become dead letters.",
    )
    result_ttl_s: float = Field(
        86_400.0,
        ge=1,
        le=30 * 86_400,
        description="Seconds that a finished job and its results are kept, unless its submission "
        "says otherwise.",
    )
    dead_letter_ttl_s: float = Field(
        30 * 86_400.0, ge=60, description="Seconds that a dead letter is kept."
    )
    abandoned_s: float = Field(
        86_400.0,
        ge=1,
        description="Seconds without new sources after which an open job is closed.",
    )
    log_replicas: int | None = Field(
        None,
        ge=0,
        le=16,
        description="Replicas of Redis that must also have a submission on disk. Default: 1 with a "
        "Redis Cluster or Sentinel; 0 with a single server.",
    )


class WorkerSettings(QueueSettings):
    """Settings of a worker; its port serves only gRPC health checks."""

    section: ClassVar[str] = "worker"

    retrieval: str = Field(
        "", description="Router that indexes the documents, host:port; required."
    )
    batch: int = Field(64, ge=1, le=1024, description="Documents taken from the queue at a time.")
    in_flight: int = Field(4, ge=1, le=64, description="Batches processed concurrently.")
    lease_s: float = Field(
        15.0,
        ge=1,
        le=3_600,
        description="Seconds after which documents held by a worker go to another one, unless the "
        "worker extends its lease.",
    )
    notice_s: float = Field(
        10.0,
        ge=0,
        le=600,
        description="Seconds to finish the documents it holds when asked to stop; the rest returns "
        "to the queue.",
    )
    attempts: int = Field(
        5, ge=1, le=100, description="Failed attempts after which a document becomes a dead letter."
    )
    backoff_s: float = Field(
        1.0,
        ge=0,
        le=3_600,
        description="Seconds before the first retry of a failed document; doubles each time, "
        "and up to half of it is subtracted at random.",
    )
    max_backoff_s: float = Field(
        300.0, ge=0, le=86_400, description="Maximum seconds before a retry."
    )
    poll_s: float = Field(0.1, gt=0, le=60, description="Seconds between polls of an empty queue.")
    sources: str = Field(
        "",
        description="Prefixes of URLs that workers may read, separated by commas: "
        "file:///data/in/, s3://bucket/in/, https://host/path/. Empty: none.",
    )
    fetch_s: float = Field(
        120.0, gt=0, le=3_600, description="Seconds that fetching a file by URL may take in all."
    )
    parse_s: float = Field(
        60.0,
        gt=0,
        le=3_600,
        description="Seconds that reading a file may take until its document or its next rows "
        "are there.",
    )

    def prefixes(self) -> tuple[str, ...]:
        """Returns the prefixes of allowed URLs.

        Raises: SettingsError: one has no scheme, or does not end with a slash.
        """
        prefixes = tuple(one for one in (part.strip() for part in self.sources.split(",")) if one)
        for one in prefixes:
            # Without the slash, https://host would also allow https://host.example.net.
            if "://" not in one or not one.endswith("/"):
                raise SettingsError(
                    f"sources contains {one!r}; write each prefix as scheme://place/ with a final "
                    "slash"
                )
        return prefixes

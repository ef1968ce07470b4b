"""Encodes sources and results for Redis, and decodes these and jobs."""

from __future__ import annotations

import re
from collections.abc import Mapping

from google.protobuf.message import DecodeError

from nearline import wire
from nearline.contract import (
    IngestResult,
    IngestSource,
    Item,
    Job,
    JobPriority,
    JobState,
    SourceUrl,
)
from nearline.errors import SnapshotCorrupt
from nearline.store.snapshot import PARTITIONS
from nearline.times import from_us
from nearline.v1 import ingest_pb2
from retrieval.protocols.watermark import Watermark

_USER = re.compile(r"(?<=://)[^/?#]*@")
# The query of signed URLs of S3, Google and CloudFront; "sig" is Azure's.
_SIGNED = re.compile(r"(?i)\?[^#]*?(?<=[?&])(?:[\w%-]*signature|sig)=[^#]*")
_COUNTS = ("sources", "documents", "indexed", "superseded", "dead", "cancelled", "left")


def pack_source(source: IngestSource) -> bytes:
    """Returns a source as bytes. Raises: InvalidRequest: it cannot be encoded."""
    return wire.source_to_proto(source).SerializeToString()


def unpack_source(data: bytes) -> IngestSource:
    """Decodes a source. Raises: SnapshotCorrupt, InvalidRequest: the bytes are not a source."""
    try:
        return wire.source_from_proto(ingest_pb2.IngestSource.FromString(data), "source")
    except DecodeError as error:
        raise _corrupt(data) from error


def pack_result(result: IngestResult) -> bytes:
    """Returns a result as bytes."""
    return wire.ingest_result_to_proto(result).SerializeToString()


def unpack_result(data: bytes) -> IngestResult:
    """Decodes a result. Raises: SnapshotCorrupt: the bytes are not a result."""
    try:
        return wire.ingest_result_from_proto(ingest_pb2.IngestResult.FromString(data))
    except DecodeError as error:
        raise _corrupt(data) from error


def source_name(source: IngestSource) -> str:
    """Returns what users call a source: the id of an item, the name of a file, or a URL."""
    if isinstance(source, Item):
        return source.id
    return public_url(source.url) if isinstance(source, SourceUrl) else source.name


def public_url(url: str) -> str:
    """Returns a URL that anybody may read: without a user name, and unsigned.

    Such a name stays the same when the file is submitted again with a new signature.
    """
    return _SIGNED.sub("", _USER.sub("", url))


def is_job(fields: Mapping[bytes, bytes]) -> bool:
    """Returns whether these are the fields of a job."""
    return b"create" in fields


def decode_job(job_id: str, fields: Mapping[bytes, bytes], expires_ms: int) -> Job:
    """Returns a job.

    Args:
        job_id: Its id.
        fields: Its hash; see `scripts`.
        expires_ms: When it expires, milliseconds since 1970; negative if not yet known.
    """

    def number(name: str) -> int:
        return int(fields.get(name.encode(), b"0"))

    finish = fields.get(b"finish")
    positions = [number(f"at:{one}") for one in range(PARTITIONS)]
    watermark = Watermark(fields[b"log"].decode(), tuple(positions)) if b"log" in fields else None
    return Job(
        job_id=job_id,
        collection=fields[b"collection"].decode(),
        tenant=fields[b"tenant"].decode(),
        priority=JobPriority(fields[b"priority"].decode()),
        callback_id=fields[b"callback"].decode(),
        state=_state(fields, finished=finish is not None),
        open=number("open") == 1,
        create_time=from_us(number("create")),
        update_time=from_us(number("update")),
        finish_time=None if finish is None else from_us(int(finish)),
        expire_time=from_us(expires_ms * 1_000) if expires_ms > 0 else None,
        watermark=b"" if watermark is None else watermark.encode(),
        **{name: number(name) for name in _COUNTS},
    )


def _corrupt(data: bytes) -> SnapshotCorrupt:
    return SnapshotCorrupt(
        f"this version of nearline cannot read an entry of the queue ({len(data)} bytes); use the "
        "version that wrote it, or the newest"
    )


def _state(fields: Mapping[bytes, bytes], *, finished: bool) -> JobState:
    done = {
        name: int(fields.get(name, b"0"))
        for name in (b"indexed", b"superseded", b"dead", b"cancelled")
    }
    if not finished:
        if b"cancel" in fields:
            return JobState.CANCELLING
        return JobState.RUNNING if b"begun" in fields else JobState.QUEUED
    if done[b"cancelled"]:
        return JobState.CANCELLED
    if not done[b"dead"]:
        # A job that was cancelled after all its documents were processed has succeeded.
        return JobState.SUCCEEDED
    good = done[b"indexed"] + done[b"superseded"]
    return JobState.PARTLY_FAILED if good else JobState.FAILED

"""Jobs, sources and results as Redis keeps them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from index_builder.ingest import codec
from nearline import contract as c
from nearline.errors import SnapshotCorrupt
from nearline.times import to_us
from retrieval.protocols.watermark import Watermark

LOG = "ab" * 16
CREATED, UPDATED, FINISHED, EXPIRES = (
    datetime(2026, 1, day, 12, 30, 15, 250_000, tzinfo=UTC) for day in (1, 2, 3, 4)
)


def fields(**more: object) -> dict[bytes, bytes]:
    """Returns the hash of a job."""
    known = {
        "collection": "books",
        "tenant": "t",
        "priority": "low",
        "callback": "cb",
        "create": to_us(CREATED),
        "update": to_us(UPDATED),
    }
    return {name.encode(): str(value).encode() for name, value in {**known, **more}.items()}


STATES: list[tuple[dict[str, object], c.JobState]] = [
    ({}, c.JobState.QUEUED),
    ({"begun": 1, "dead": 1}, c.JobState.RUNNING),
    ({"begun": 1, "cancel": 1, "cancelled": 1}, c.JobState.CANCELLING),
    ({"finish": 5}, c.JobState.SUCCEEDED),
    ({"finish": 5, "begun": 1, "indexed": 1}, c.JobState.SUCCEEDED),
    # All documents were processed before the request.
    ({"finish": 5, "cancel": 1, "indexed": 1}, c.JobState.SUCCEEDED),
    ({"finish": 5, "cancel": 1, "indexed": 1, "cancelled": 1}, c.JobState.CANCELLED),
    ({"finish": 5, "dead": 1, "cancelled": 1}, c.JobState.CANCELLED),
    ({"finish": 5, "dead": 1}, c.JobState.FAILED),
    ({"finish": 5, "dead": 1, "indexed": 1}, c.JobState.PARTLY_FAILED),
    ({"finish": 5, "dead": 1, "superseded": 1}, c.JobState.PARTLY_FAILED),
]


@pytest.mark.parametrize(("more", "state"), STATES)
def test_the_state_of_a_job_follows_from_its_counts(
    more: dict[str, object], state: c.JobState
) -> None:
    assert codec.decode_job("j", fields(**more), -1).state is state


def test_all_fields_of_a_job_are_read() -> None:
    counts = dict(sources=1, documents=2, indexed=3, superseded=4, dead=5, cancelled=6, left=7)
    more = {"open": 1, "finish": to_us(FINISHED), "log": LOG, "at:5": 9, **counts}
    expires_ms = to_us(EXPIRES) // 1_000
    assert codec.decode_job("j", fields(**more), expires_ms) == c.Job(
        job_id="j",
        collection="books",
        tenant="t",
        priority=c.JobPriority.LOW,
        callback_id="cb",
        state=c.JobState.CANCELLED,
        open=True,
        create_time=CREATED,
        update_time=UPDATED,
        finish_time=FINISHED,
        expire_time=EXPIRES,
        watermark=Watermark(LOG).advanced({5: 9}).encode(),
        **counts,
    )


def test_a_new_job_has_neither_an_end_nor_a_watermark() -> None:
    job = codec.decode_job("j", fields(open=0), -1)
    assert (job.open, job.finish_time, job.expire_time, job.watermark) == (False, None, None, b"")
    assert (job.sources, job.left) == (0, 0)
    assert codec.is_job(fields()) and not codec.is_job({})


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (c.Item(id="a", text="text"), "a"),
        (c.SourceFile("a.md", b"\x00"), "a.md"),
        (c.SourceUrl("s3://b/a.md"), "s3://b/a.md"),
        (c.SourceUrl("https://h/a.md?id=1&v=@2#b"), "https://h/a.md?id=1&v=@2#b"),
        (c.SourceUrl("https://h/a.md?design=1&sig"), "https://h/a.md?design=1&sig"),
        (c.SourceUrl("https://u:p@h/a.md"), "https://h/a.md"),
        (c.SourceUrl("https://h/a.md?X-Amz-Date=1&X-Amz-Signature=s#b"), "https://h/a.md#b"),
        (c.SourceUrl("https://h/a.md?x-goog-signature=s&x=1"), "https://h/a.md"),
        (c.SourceUrl("https://h/a.md?Expires=1&Signature=s"), "https://h/a.md"),
        (c.SourceUrl("https://h/a.md?sv=1&sig=s"), "https://h/a.md"),
    ],
)
def test_a_source_survives_the_queue(source: c.IngestSource, name: str) -> None:
    assert codec.unpack_source(codec.pack_source(source)) == source
    assert codec.source_name(source) == name


def test_bytes_of_another_version_are_reported() -> None:
    for unpack in (codec.unpack_source, codec.unpack_result):
        with pytest.raises(SnapshotCorrupt, match=r"cannot read an entry of the queue \(3 bytes\)"):
            unpack(b"\xff\xff\xff")

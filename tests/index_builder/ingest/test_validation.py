"""Bounds of a submission and of a page: the last value that is allowed, and the next."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from index_builder.ingest.validation import check_job_id, check_submission, resolve_page_size
from nearline import contract as c
from nearline.errors import InvalidRequest
from tests.index_builder.ingest.submissions import submission

ITEM = c.Item(id="a", text="text")


@pytest.mark.parametrize(("requested", "size"), [(0, 100), (1, 1), (1_000, 1_000)])
def test_a_page_has_as_many_entries_as_requested_and_100_by_default(
    requested: int, size: int
) -> None:
    assert resolve_page_size(requested) == size


@pytest.mark.parametrize("requested", [-1, 1_001])
def test_a_page_has_at_most_a_thousand_entries(requested: int) -> None:
    with pytest.raises(InvalidRequest, match=f"page_size is {requested}"):
        resolve_page_size(requested)


@pytest.mark.parametrize("job_id", ["", "a b", "a\n", "ä", "a" * (c.MAX_JOB_ID + 1)])
def test_a_job_id_has_a_few_plain_characters(job_id: str) -> None:
    check_job_id("a" * c.MAX_JOB_ID)
    with pytest.raises(InvalidRequest, match="job_id is"):
        check_job_id(job_id)


@pytest.mark.parametrize(
    ("field", "allowed", "refused"),
    [
        ("sources", [ITEM], []),
        ("sources", [ITEM] * c.MAX_BATCH, [ITEM] * (c.MAX_BATCH + 1)),
        ("offset", 0, -1),
        ("ttl_s", 1.0, 0.999),
        ("ttl_s", c.MAX_RESULT_TTL_S, c.MAX_RESULT_TTL_S + 1),
        ("tenant", "t" * c.MAX_TENANT_BYTES, "t" * (c.MAX_TENANT_BYTES + 1)),
        ("tenant", "t", " "),
        ("callback_id", "t" * c.MAX_CALLBACK_BYTES, "t" * (c.MAX_CALLBACK_BYTES + 1)),
    ],
)
def test_a_submission_has_limits(field: str, allowed: Any, refused: Any) -> None:
    check_submission(replace(submission("job"), **{field: allowed}))
    with pytest.raises(InvalidRequest) as caught:
        check_submission(replace(submission("job"), **{field: refused}))
    assert caught.value.field == {"ttl_s": "result_ttl"}.get(field, field)


@pytest.mark.parametrize(
    ("allowed", "refused", "field"),
    [
        (c.SourceFile("a.MD", b"a"), c.SourceFile("a.npy", b"a"), "file.name"),
        (c.SourceFile("a.md", b" "), c.SourceFile("a.md", b""), "file.content"),
        (
            c.SourceFile("a.md", bytes(c.MAX_FILE_BYTES)),
            c.SourceFile("a.md", bytes(c.MAX_FILE_BYTES + 1)),
            "file.content",
        ),
        (c.SourceUrl("s3://b/a.md"), c.SourceUrl("ftp://b/a.md"), "url"),
        (c.SourceUrl("https://h/a.md?b=c"), c.SourceUrl("https://h/a?b=c.md"), "url"),
        (c.SourceUrl("https://h/@.md"), c.SourceUrl("https://me:secret@h/a.md"), "url"),
    ],
)
def test_a_source_that_no_worker_could_read_is_refused_with_its_place(
    allowed: c.IngestSource, refused: c.IngestSource, field: str
) -> None:
    check_submission(submission("job", [ITEM, allowed]))
    with pytest.raises(InvalidRequest) as caught:
        check_submission(submission("job", [ITEM, refused]))
    assert caught.value.field == f"sources[1].{field}"
    assert "secret" not in caught.value.message

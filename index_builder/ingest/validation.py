"""Checks of a submission as a whole."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from index_builder.ingest.codec import public_url
from index_builder.ingest.records import Submission
from index_builder.readers.formats import MATRIX, SUFFIXES
from nearline import contract as c
from nearline.access.tenant_ids import name_of
from nearline.errors import InvalidRequest
from nearline.items.documents import check_text_bytes
from nearline.store.snapshot import check_collection
from nearline.wire.limits import BATCH, JOB_ID, LIMITS, check_count, check_range

_JOB_ID = re.compile(JOB_ID.pattern)
# A bare matrix has no meaningful ids.
KINDS: Final = tuple(one for one in SUFFIXES if one != MATRIX)
_SCHEMES = ("file", "s3", "gs", "az", "http", "https")
_MIN_TTL_S = 1.0


def check_submission(submission: Submission) -> None:
    """Checks a submission; errors in single documents are found by workers.

    Raises: InvalidRequest: a name, number or file format is not allowed; names the field.
    """
    sources, tenant, offset = submission.sources, submission.tenant, submission.offset
    check_count(len(sources), "sources", BATCH, "send several requests, with more set")
    check_collection(submission.collection)
    check_text_bytes(tenant, "tenant", c.MAX_TENANT_BYTES)
    check_text_bytes(submission.callback_id, "callback_id", c.MAX_CALLBACK_BYTES)
    if not tenant.strip():
        raise InvalidRequest("tenant is empty", field="tenant")
    check_job_id(submission.job_id)
    if offset < 0:
        raise InvalidRequest(f"offset is {offset}; it counts sources from 0", field="offset")
    if not _MIN_TTL_S <= submission.ttl_s <= c.MAX_RESULT_TTL_S:
        raise InvalidRequest(
            f"result_ttl is {submission.ttl_s:g} s; {_MIN_TTL_S:g}..{c.MAX_RESULT_TTL_S:g} s are "
            "allowed",
            field="result_ttl",
        )
    for at, source in enumerate(sources):
        _check_source(source, f"sources[{at}]")


def check_job_id(job_id: str) -> None:
    """Raises InvalidRequest unless this is a valid job id."""
    if not _JOB_ID.fullmatch(name_of(job_id)):
        raise InvalidRequest(
            f"job_id is {job_id!r}; use 1..{c.MAX_JOB_ID} letters, digits, - and _",
            field="job_id",
        )


def resolve_page_size(requested: int) -> int:
    """Returns the number of entries on a page; 0 means 100.

    Raises: InvalidRequest: more than 1,000.
    """
    check_range(requested, "page_size", LIMITS["ListJobsRequest.page_size"])
    return requested or 100


def _check_source(source: c.IngestSource, field: str) -> None:
    if isinstance(source, c.SourceFile):
        check_text_bytes(source.name, f"{field}.file.name", c.MAX_ID_BYTES)
        _check_kind(source.name, f"{field}.file.name")
        if not source.content:
            raise InvalidRequest(
                f"file {source.name} is empty; save or export it again, or leave it out",
                field=f"{field}.file.content",
            )
        if len(source.content) > c.MAX_FILE_BYTES:
            raise InvalidRequest(
                f"file {source.name} has {len(source.content)} bytes; {c.MAX_FILE_BYTES} are "
                "allowed: split it, or store it where workers can read it and submit its URL",
                field=f"{field}.file.content",
            )
    elif isinstance(source, c.SourceUrl):
        check_text_bytes(source.url, f"{field}.url", int(LIMITS["IngestSource.url"].most))
        try:
            parts = urlsplit(source.url)
        except ValueError as error:
            raise InvalidRequest(
                f"{source.url!r} is not a valid URL: {error}", field=f"{field}.url"
            ) from error
        if parts.scheme not in _SCHEMES:
            raise InvalidRequest(
                f"URL {source.url!r} has no scheme that workers can read; use one of "
                f"{', '.join(f'{one}://' for one in _SCHEMES)}",
                field=f"{field}.url",
            )
        if "@" in parts.netloc:
            raise InvalidRequest(
                f"{public_url(source.url)} was given with a user name or password, which workers "
                "do not send; submit a signed URL, or the file itself",
                field=f"{field}.url",
            )
        _check_kind(parts.path, f"{field}.url")


def _check_kind(name: str, field: str) -> None:
    if PurePosixPath(name).suffix.lower() not in KINDS:
        raise InvalidRequest(
            f"{name!r} has no known file type; supported endings: {', '.join(KINDS)}",
            field=field,
        )

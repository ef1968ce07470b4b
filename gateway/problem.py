"""Errors as problem details: JSON that says what is wrong and what helps.

    {"type": "about:blank", "title": "Too Many Requests", "status": 429, "reason": "OVERLOADED",
     "detail": "…; retry later", "retry_after_s": 0.25, "request_id": "5c1f…"}

Source: RFC 9457. `reason` and `field` are those of the gRPC interface (docs/reference/errors.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import orjson

from nearline.errors import InvalidRequest, NearlineError

MEDIA_TYPE: Final = "application/problem+json"
# Source: google/rpc/code.proto; conflicts of state are 409 throughout.
_STATUS: Final[Mapping[str, int]] = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "FAILED_PRECONDITION": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
# Of any request, and of one with a body.
STATUSES: Final = (*sorted({500, *_STATUS.values()}),)
BODY_STATUSES: Final = (413, 415)


class HttpError(InvalidRequest):
    """A request that HTTP has a status of its own for."""

    def __init__(self, message: str, http_status: int = 400, field: str = "") -> None:
        super().__init__(message, field=field)
        self.http_status = http_status


def http_status(error: NearlineError) -> int:
    """Returns the HTTP status of an error."""
    return error.http_status if isinstance(error, HttpError) else _STATUS.get(error.status, 500)


def problem(error: NearlineError, request_id: str) -> bytes:
    """Returns the problem details of an error."""
    number = http_status(error)
    found: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(number).phrase,
        "status": number,
        "detail": error.message,
        "reason": error.reason,
        "request_id": request_id,
    }
    if error.field:
        found["field"] = error.field
    if error.retry_after_s is not None:
        found["retry_after_s"] = error.retry_after_s
    return orjson.dumps(found)


def problem_headers(error: NearlineError) -> dict[str, str]:
    """Returns the headers that go with problem details."""
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    if error.status == "UNAUTHENTICATED":
        headers["www-authenticate"] = "Bearer"
    return headers

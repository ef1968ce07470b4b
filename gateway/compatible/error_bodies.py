"""Errors in the shapes of other systems, for the paths that their clients ask."""

from __future__ import annotations

from typing import Any

from gateway.problem import http_status
from nearline.errors import NearlineError

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def tei_error(error: NearlineError) -> dict[str, Any]:
    """Returns the body of an error, as Text Embeddings Inference sends it."""
    return {"error": error.message, "error_type": error.reason.lower()}


def openai_error(error: NearlineError) -> dict[str, Any]:
    """Returns the body of an error, as OpenAI sends it, and Cohere in `message`."""
    status = http_status(error)
    return {
        "message": error.message,
        "error": {
            "message": error.message,
            "type": _TYPES.get(
                status, "server_error" if status >= 500 else "invalid_request_error"
            ),
            "param": error.field or None,
            "code": error.reason.lower(),
        },
    }

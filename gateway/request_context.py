"""Headers of a request: who asks, how long it may take, and under which id."""

from __future__ import annotations

import math
import secrets
from typing import Final

from starlette.requests import Request

from gateway.settings import GatewaySettings
from gateway.upstream import CallContext
from nearline.channel_security import LANE_KEY
from nearline.errors import InvalidRequest
from nearline.tracing.spans import is_tracing
from nearline.tracing.trace_context import TRACEPARENT, parse_traceparent

REQUEST_ID: Final = "x-request-id"
_MAX_REQUEST_ID: Final = 128
# Where a request has the id that was made for it.
_OWN_ID: Final = "nearline.request_id"
TIMEOUT: Final = "nearline-timeout"
# Where API keys are looked for beside Authorization, as clients of other systems send them.
_KEY_HEADERS: Final = ("api-key", "x-api-key")


def has_credential(request: Request) -> bool:
    """Returns whether a request carries a credential, valid or not."""
    return any(name in request.headers for name in ("authorization", *_KEY_HEADERS))


def request_id(request: Request) -> str:
    """Returns the id that the caller gave the request, or else one that is made once for it."""
    given = request.headers.get(REQUEST_ID, "")[:_MAX_REQUEST_ID]
    if given and given.isascii() and given.isprintable():
        return given
    if _OWN_ID not in request.scope:
        request.scope[_OWN_ID] = secrets.token_hex(8)
    return str(request.scope[_OWN_ID])


def call_context(request: Request, settings: GatewaySettings) -> CallContext:
    """Returns what a request says in its headers.

    Args:
        request: The request.
        settings: Seconds of a request that names none, and the most that it may name.
    Raises: InvalidRequest: the timeout is not a number of seconds above 0.
    """
    headers = request.headers
    metadata: list[tuple[str, str | bytes]] = [(REQUEST_ID, request_id(request))]
    if (credential := headers.get("authorization")) is not None:
        metadata.append(("authorization", credential))
    else:
        for name in _KEY_HEADERS:
            if (key := headers.get(name)) is not None:
                metadata.append(("authorization", f"Bearer {key}"))
                break
    if (lane := headers.get(LANE_KEY)) is not None:
        metadata.append((LANE_KEY, lane))
    traceparent = headers.get(TRACEPARENT)
    if traceparent is not None and not is_tracing() and parse_traceparent(traceparent):
        # Services may trace even if this gateway does not; if it does, its calls carry its own.
        metadata.append((TRACEPARENT, traceparent))
    for name, value in metadata:
        if not (str(value).isascii() and str(value).isprintable()):
            raise InvalidRequest(
                f"the header {name} has characters other than printable ASCII", field=name
            )
    timeout_s = settings.timeout_s
    if (given := headers.get(TIMEOUT)) is not None:
        try:
            timeout_s = float(given)
        except ValueError:
            timeout_s = math.nan
        if not timeout_s > 0:
            raise InvalidRequest(
                f"the header {TIMEOUT} is {given[:40]!r}; send seconds above 0, such as 2.5",
                field=TIMEOUT,
            )
    return CallContext(tuple(metadata), min(timeout_s, settings.max_timeout_s))

"""Trailers of an error: their size, and when gRPC's own retries come back."""

from __future__ import annotations

import base64
from urllib.parse import quote

import grpc
import pytest

from nearline import errors, status

# What gRPC does not escape in the message of a status.
_PLAIN = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}"


def sent_bytes(error: errors.NearlineError) -> int:
    """Returns the bytes of the message and of the details, as gRPC sends them."""
    details = dict(status.to_trailers(error))[status.DETAILS_KEY]
    assert isinstance(details, bytes)
    return len(quote(status.wire_message(error), safe=_PLAIN)) + len(base64.b64encode(details))


@pytest.mark.parametrize("letter", ["x", "é", "中", "\n", "%"])
@pytest.mark.parametrize("field", ["", "options.k", "f" * 200])
@pytest.mark.parametrize("length", [400, 1_000, 1_250, 1_400, 3_584, 40_000])
def test_a_status_stays_below_its_limit_and_uses_most_of_it(
    letter: str, field: str, length: int
) -> None:
    # A long word would be shortened before.
    message = f"begin {f'{letter * 9} ' * (length // 10)}end"
    error = errors.InvalidRequest(message, field=field, retry_after_s=1.5)
    assert sent_bytes(error) <= status.MAX_STATUS_BYTES
    shown = status.wire_message(error)
    if shown == message:
        return
    assert shown.startswith("begin ") and shown.endswith(" end") and " … " in shown
    # Each cut leaves three quarters.
    assert sent_bytes(error) > status.MAX_STATUS_BYTES // 2


def test_a_message_that_fits_is_not_cut() -> None:
    message = "xxxxxxxxx " * 130
    assert status.wire_message(errors.NotReady(message)) == message


@pytest.mark.parametrize(
    ("retry_after_s", "peer_died", "pushback"),
    [
        (None, False, None),
        (0.0, False, "1"),
        (0.0004, False, "1"),
        (2.5, False, "2500"),
        (2.5, True, "-1"),
        (None, True, "-1"),
    ],
)
def test_grpc_retries_when_the_error_says_and_never_if_a_peer_died(
    retry_after_s: float | None, peer_died: bool, pushback: str | None
) -> None:
    error = errors.NotReady("away", retry_after_s=retry_after_s, peer_died=peer_died)
    assert dict(status.to_trailers(error)).get(status.PUSHBACK_KEY) == pushback


@pytest.mark.parametrize(
    ("code", "text", "kind", "said", "peer_died"),
    [
        (
            "RESOURCE_EXHAUSTED",
            "Sent message larger than max",
            "InvalidRequest",
            "too large",
            False,
        ),
        ("RESOURCE_EXHAUSTED", "Too many pings", "Overloaded", "EXHAUSTED: Too many pings", False),
        ("UNKNOWN", "a name larger than max", "InternalError", "UNKNOWN: a name", False),
        ("INTERNAL", status.LOST, "NotReady", "send the same requests again", False),
        ("INTERNAL", "a fault", "InternalError", "INTERNAL: a fault", False),
        ("UNKNOWN", status.LOST, "InternalError", f"UNKNOWN: {status.LOST}", False),
        ("CANCELLED", "CANCELLED", "NotReady", "before it began", False),
        ("UNAVAILABLE", "Failed to connect to all", "NotReady", "does not answer", False),
        ("UNAVAILABLE", "Socket closed", "NotReady", "does not answer", True),
        (
            "UNAVAILABLE",
            "Stream removed (RST_STREAM (Received RST_STREAM with error code 7))",
            "Overloaded",
            "more connections",
            False,
        ),
        (
            "UNAVAILABLE",
            "Stream removed (RST_STREAM (Received RST_STREAM with error code 2))",
            "NotReady",
            "does not answer",
            True,
        ),
        ("DEADLINE_EXCEEDED", "", "DeadlineExceeded", "in time (no details)", False),
        ("UNIMPLEMENTED", "Method not found!", "Unsupported", "no such method", False),
        ("NOT_FOUND", "a page", "NotFound", "NOT_FOUND: a page", False),
    ],
)
def test_errors_of_grpc_itself_name_the_peer_and_what_to_do(
    code: str, text: str, kind: str, said: str, *, peer_died: bool
) -> None:
    none = grpc.aio.Metadata()
    error = status.from_rpc_error(
        grpc.aio.AioRpcError(grpc.StatusCode[code], none, none, text), "router:50051"
    )
    assert (type(error).__name__, error.peer_died) == (kind, peer_died)
    assert "router:50051" in error.message and said in error.message

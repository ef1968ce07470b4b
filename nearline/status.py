"""Errors across the wire: `nearline.errors` to gRPC status with google.rpc details, and back."""

from __future__ import annotations

import re
from typing import Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from nearline import errors
from nearline.errors import NearlineError

DOMAIN = "nearline"
DETAILS_KEY = "grpc-status-details-bin"
PUSHBACK_KEY = "grpc-retry-pushback-ms"
# gRPC discards a status with trailers of 8 KiB or more, and the caller then learns nothing. This
# leaves room for a request id and for the trailers of proxies.
MAX_STATUS_BYTES = 3_584
_MAX_DESCRIPTION = 300
# By gRPC's protocol, a negative delay forbids a retry.
_NO_RETRY = "-1"
# Part of gRPC's text for a call that was never sent, since no connection could be made.
_NOT_CONNECTED = "failed to connect"
# Part of gRPC's text for a message over the limit of its receiver or sender.
_TOO_LARGE = "larger than max"
# REFUSED_STREAM of RFC 9113: the connection has as many calls as the server takes. The server did
# not look at the call.
_STREAM_REFUSED = "RST_STREAM with error code 7"
# gRPC's text for a failed write to a stream that the server has ended.
LOST = "Internal error from Core"

# What to do where a call was not answered, by a part of gRPC's text.
_REMEDIES = (
    (
        "WRONG_VERSION_NUMBER",
        "it does not speak TLS: leave out NEARLINE_TLS_CA and other TLS files of the client, or "
        "give the service a certificate (--tls-cert)",
    ),
    (
        "andshake failed",
        "its certificate is not the one that NEARLINE_TLS_CA promises: name the authority that "
        "signed it, and an address that it is for",
    ),
    (
        "Connection refused",
        "nothing listens there: start the services with `nearline up`, or correct the address; "
        "`nearline status` shows what runs",
    ),
    ("errors resolving", "correct the address: HOST:PORT, such as 127.0.0.1:7700"),
    (
        "Socket closed",
        "it closed the connection: if it uses TLS, set NEARLINE_TLS_CA; if it is starting or "
        "stopping, try again",
    ),
)
_CHECK = "check the service with `nearline status` and, if it uses TLS, NEARLINE_TLS_CA"

# Places of the stores of this process, with how messages mention them.
_hidden: dict[str, re.Pattern[str]] = {}

BY_REASON: dict[str, type[NearlineError]] = {
    kind.reason: kind
    for kind in (
        errors.InvalidRequest,
        errors.Unauthenticated,
        errors.PermissionDenied,
        errors.NotFound,
        errors.AlreadyExists,
        errors.Overloaded,
        errors.FeedBlocked,
        errors.NotReady,
        errors.ShardsUnavailable,
        errors.NotApplied,
        errors.SnapshotMismatch,
        errors.GateFailed,
        errors.SnapshotGone,
        errors.Conflict,
        errors.SnapshotCorrupt,
        errors.Unsupported,
        errors.DeadlineExceeded,
        errors.InternalError,
    )
}
# A status without Nearline's details comes from gRPC itself or from another server.
_BY_STATUS: dict[grpc.StatusCode, type[NearlineError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequest,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Overloaded,
    grpc.StatusCode.UNAVAILABLE: errors.NotReady,
    grpc.StatusCode.FAILED_PRECONDITION: errors.SnapshotMismatch,
    grpc.StatusCode.ABORTED: errors.Conflict,
    grpc.StatusCode.DATA_LOSS: errors.SnapshotCorrupt,
    grpc.StatusCode.UNIMPLEMENTED: errors.Unsupported,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    # Sent by a server: a caller's own cancellation raises asyncio's CancelledError. gRPC ends calls
    # this way that a stopping server had received but not begun (grpc/grpc#41785).
    grpc.StatusCode.CANCELLED: errors.NotReady,
}

# Bytes of a message that take one byte on the wire; the others are percent-encoded.
_SENT_AS_THEY_ARE: Final = bytes(byte for byte in range(0x20, 0x7F) if byte != 0x25)


def status_code(error: NearlineError) -> grpc.StatusCode:
    """Returns the gRPC status of an error; local errors (settings, store) are INTERNAL."""
    return grpc.StatusCode[error.status]


def hide_place(url: str) -> None:
    """Keeps the place of a store, which only its operator should know, out of errors of servers."""
    _hidden[url] = re.compile(rf"(?: in store| in| --store)? {re.escape(url)}(?![\w/.-])")


def wire_message(error: NearlineError) -> str:
    """Returns the message of an error, cut in the middle if its status would be too large."""
    # A lone surrogate cannot be sent.
    whole = error.message.encode(errors="replace").decode()
    for url, mentions in _hidden.items():
        whole = mentions.sub("", whole).replace(url, "STORE")
    # Each character takes a byte at least.
    message, kept = whole[: MAX_STATUS_BYTES + 1], min(len(whole), 2 * MAX_STATUS_BYTES)
    while _status_bytes(message, error.field) > MAX_STATUS_BYTES:
        kept = 3 * kept // 4
        # The remedy is at the end.
        message = f"{whole[: kept - kept // 3]} … {whole[len(whole) - kept // 3 :]}"
    return message


def to_trailers(error: NearlineError) -> tuple[tuple[str, str | bytes], ...]:
    """Packs an error into trailers: google.rpc.Status with ErrorInfo, BadRequest and RetryInfo.

    With `retry_after_s`, they also carry the pushback that gRPC's own retries obey; with
    `peer_died`, the pushback that forbids them.
    """
    message = wire_message(error)
    details: list[any_pb2.Any] = []

    def add(message: Message) -> None:
        packed = any_pb2.Any()
        packed.Pack(message)
        details.append(packed)

    add(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN))
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=message[:_MAX_DESCRIPTION]
        )
        add(error_details_pb2.BadRequest(field_violations=[violation]))
    trailers: list[tuple[str, str | bytes]] = []
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMicroseconds(int(error.retry_after_s * 1e6))
        add(error_details_pb2.RetryInfo(retry_delay=delay))
    if error.peer_died:
        trailers.append((PUSHBACK_KEY, _NO_RETRY))
    elif error.retry_after_s is not None:
        trailers.append((PUSHBACK_KEY, str(max(1, int(error.retry_after_s * 1e3)))))
    code = code_pb2.Code.Value(error.status)
    status = status_pb2.Status(code=code, message=message, details=details)
    trailers.append((DETAILS_KEY, status.SerializeToString()))
    return tuple(trailers)


def _status_bytes(message: str, field: str) -> int:
    """Returns an upper bound of the bytes that a status takes on the wire.

    The message is sent twice: percent-encoded, and with all details in base64.
    """
    text = message.encode()
    escaped = len(text.translate(None, _SENT_AS_THEY_ARE))
    details = len(text) + len(field.encode(errors="replace"))
    if field:
        details += len(message[:_MAX_DESCRIPTION].encode())
    return len(text) + 2 * escaped + (details + 300) * 4 // 3


def from_rpc_error(error: grpc.aio.AioRpcError, peer: str) -> NearlineError:
    """Returns the error that the server raised, of the same class, with its field and retry delay.

    Args:
        error: The error that gRPC raised.
        peer: The address called; named in errors that gRPC itself raised.
    """
    trailers = dict(error.trailing_metadata() or ())
    details = trailers.get(DETAILS_KEY)
    if isinstance(details, bytes):
        return _from_details(details, error, trailers.get(PUSHBACK_KEY) == _NO_RETRY)
    text = error.details() or "no details"
    kind = _BY_STATUS.get(error.code(), errors.InternalError)
    peer_died = False
    if kind is errors.Overloaded and _TOO_LARGE in text:
        # Sent by gRPC itself, before any of our code sees the message.
        kind = errors.InvalidRequest
        text = (
            f"a message to or from {peer} is too large ({text}, in bytes); send less, or ask for "
            "less, in one request"
        )
    elif kind is errors.NotReady and _STREAM_REFUSED in text:
        kind = errors.Overloaded
        text = (
            f"{peer} has as many calls of this connection as it takes (--max-streams); retry "
            "later, send fewer calls at once, or open more connections"
        )
    elif error.code() is grpc.StatusCode.INTERNAL and LOST in text:
        kind = errors.NotReady
        text = (
            f"{peer} ended the stream while a request was being sent, and gRPC lost its reason; "
            "send the same requests again"
        )
    elif error.code() is grpc.StatusCode.CANCELLED:
        # gRPC's core also sends it when more than a thousand calls wait to begin.
        text = (
            f"{peer} ended the call before it began ({text}): it is stopping, or a thousand "
            "other calls are waiting; try again with fewer calls at once"
        )
    elif kind is errors.NotReady:
        peer_died = _NOT_CONNECTED not in text.lower()
        remedy = next((do for part, do in _REMEDIES if part in text), _CHECK)
        text = f"{peer} does not answer ({text}); {remedy}"
    elif kind is errors.DeadlineExceeded:
        text = f"{peer} did not answer in time ({text}); raise the timeout or lower the load"
    elif kind is errors.Unsupported:
        text = f"{peer} has no such method ({text}); check that the port is the right service's"
    else:
        text = f"{peer}: {error.code().name}: {text}"
    return kind(text, peer_died=peer_died)


def _from_details(data: bytes, error: grpc.aio.AioRpcError, peer_died: bool) -> NearlineError:
    status = status_pb2.Status.FromString(data)
    kind = _BY_STATUS.get(error.code(), errors.InternalError)
    field, retry_after_s = "", None
    for detail in status.details:
        info, bad, retry = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.RetryInfo(),
        )
        if detail.Unpack(info) and info.domain == DOMAIN:
            kind = BY_REASON.get(info.reason, kind)
        elif detail.Unpack(bad) and bad.field_violations:
            field = bad.field_violations[0].field
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToMicroseconds() / 1e6
    return kind(status.message, field=field, retry_after_s=retry_after_s, peer_died=peer_died)

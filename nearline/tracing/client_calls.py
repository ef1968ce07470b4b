"""Calls of other services as parts of the call that runs now."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

import grpc

from nearline.tracing.spans import Span, SpanKind, carried, current_span
from nearline.tracing.trace_context import TRACEPARENT, format_traceparent

_Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]
# The API of OpenTelemetry, if the application uses it; nothing here imports it.
_API: Final = "opentelemetry.trace"


def traced(make: Callable[..., Any], peer: str) -> Callable[..., Any]:
    """Returns a method of a channel, such as `unary_unary`, whose calls are traced.

    peer: Address of the channel.
    """

    def traced_make(method: str, *arguments: Any, **named: Any) -> _TracedMethod:
        return _TracedMethod(make(method, *arguments, **named), method, peer)

    return traced_make


class _TracedMethod:
    """A method of a service, called as a part of what runs now."""

    __slots__ = ("_call", "_method", "_peer")

    def __init__(self, call: Callable[..., Any], method: str, peer: str) -> None:
        self._call = call
        self._method = method.lstrip("/")
        self._peer = peer

    def __call__(self, *request: Any, metadata: _Metadata = (), **named: Any) -> Any:
        found = carried()
        if found is None:
            if _API not in sys.modules:
                return self._call(*request, metadata=metadata, **named)
            found = _application_traceparent()
        if found.__class__ is Span:
            # One that has ended belongs to a call that this task outlives.
            if (span := current_span()) is None:
                return self._call(*request, metadata=metadata, **named)
            if (part := span.child(self._method, SpanKind.CLIENT)) is not None:
                return self._recorded(part, request, metadata, named)
            found = span.traceparent
        if found is not None:
            metadata = (*metadata, (TRACEPARENT, found))  # type: ignore[arg-type]
        return self._call(*request, metadata=metadata, **named)

    def _recorded(
        self, part: Span, request: Sequence[Any], metadata: _Metadata, named: dict[str, Any]
    ) -> Any:
        part.attributes["server.address"] = self._peer
        metadata = (*metadata, (TRACEPARENT, part.traceparent))
        try:
            call = self._call(*request, metadata=metadata, **named)
        except BaseException as error:
            part.end(type(error).__name__)
            raise
        call.add_done_callback(partial(_end, part))
        return call


def end_rpc(span: Span, code: str) -> None:
    """Ends the span of a call, which is named "package.Service/Method".

    code: Name of its gRPC status.
    """
    service, _, method = span.name.rpartition("/")
    span.attributes |= {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    status = getattr(grpc.StatusCode, code, grpc.StatusCode.UNKNOWN)
    span.attributes["rpc.grpc.status_code"] = status.value[0]
    span.end("" if code == "OK" else code)


def _end(part: Span, call: Any) -> None:
    """Ends a span with its call, which calls this."""
    # The status is known by now, and only to be had from a coroutine that does not wait.
    if call.cancelled():
        end_rpc(part, "CANCELLED")
        return
    waiting = call.code()
    try:
        waiting.send(None)
    except StopIteration as ended:
        end_rpc(part, ended.value.name)
    else:
        waiting.close()
        part.end("UNKNOWN")


def _application_traceparent() -> str | None:
    """Returns the header of the span in which the application calls; None if it has none.

    Only this header: baggage and other formats may carry what the application must not send.
    """
    try:
        found = sys.modules[_API].get_current_span().get_span_context()
        if not found.is_valid:
            return None
        return format_traceparent(
            f"{found.trace_id:032x}", f"{found.span_id:016x}", sampled=found.trace_flags.sampled
        )
    except Exception:
        # It is optional, and being imported at this moment, or of another version.
        return None

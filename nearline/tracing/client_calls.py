"""Calls of other services as parts of the call that runs now."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

import grpc

from nearline.tracing.spans import Span, carried, child_of, end_span, traceparent_of
from nearline.tracing.trace_context import TRACEPARENT, format_traceparent

_Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]
# The API of OpenTelemetry, if the application uses it; nothing here imports it.
_API: Final = "opentelemetry.trace"


def traced(make: Callable[..., Any], peer: str) -> Callable[..., Any]:
    """Returns a method of a channel, such as `unary_unary`, whose calls are traced.

    peer: Address of the channel.
    """

    def traced_make(
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> _TracedMethod:
        call = make(method, request_serializer, response_deserializer)
        return _TracedMethod(call, method.lstrip("/"), peer)

    return traced_make


class _TracedMethod:
    """A method of a service, called as a part of what runs now."""

    __slots__ = ("_call", "_method", "_peer")

    def __init__(self, call: Callable[..., Any], method: str, peer: str) -> None:
        self._call = call
        self._method = method
        self._peer = peer

    def __call__(
        self,
        request: Any = None,
        *,
        timeout: float | None = None,
        metadata: _Metadata = (),
        wait_for_ready: bool | None = None,
    ) -> Any:
        found = carried()
        part, header = None, None
        if isinstance(found, str):
            header = found
        elif found is None:
            header = _application_traceparent() if _API in sys.modules else None
        elif found.is_recording():
            # One that has ended belongs to a call that this task outlives.
            part = child_of(found, self._method, "CLIENT")
            header = traceparent_of(part or found)
        if header is not None:
            metadata = (*metadata, (TRACEPARENT, header))
        requests = () if request is None else (request,)
        if part is None:
            return self._call(
                *requests, timeout=timeout, metadata=metadata, wait_for_ready=wait_for_ready
            )
        part.set_attribute("server.address", self._peer)
        try:
            call = self._call(
                *requests, timeout=timeout, metadata=metadata, wait_for_ready=wait_for_ready
            )
        except BaseException as error:
            end_span(part, type(error).__name__)
            raise
        call.add_done_callback(partial(_end, part, self._method))
        return call


def end_rpc(span: Span, name: str, code: str) -> None:
    """Ends the span of a call.

    Args:
        span: The span.
        name: "package.Service/Method".
        code: Name of its gRPC status.
    """
    service, _, method = name.rpartition("/")
    if span.is_recording():
        status = getattr(grpc.StatusCode, code, grpc.StatusCode.UNKNOWN)
        span.set_attributes(
            {
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": method,
                "rpc.grpc.status_code": status.value[0],
            }
        )
    end_span(span, "" if code == "OK" else code)


def _end(part: Span, name: str, call: Any) -> None:
    """Ends a span with its call, which calls this."""
    # The status is known by now, and only to be had from a coroutine that does not wait.
    if call.cancelled():
        end_rpc(part, name, "CANCELLED")
        return
    waiting = call.code()
    try:
        waiting.send(None)
    except StopIteration as ended:
        end_rpc(part, name, ended.value.name)
    else:
        waiting.close()
        end_span(part, "UNKNOWN")


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

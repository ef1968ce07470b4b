"""Spans of requests, from their headers to the last byte of the reply."""

from __future__ import annotations

from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nearline.tracing.spans import Span, SpanKind, current_span
from nearline.tracing.trace_context import TRACE_ID_KEY, TRACEPARENT
from nearline.tracing.tracer import begin_request, is_tracing

# Probes are not traced: they would be most of what is recorded.
_UNTRACED: Final = ("/healthz",)


class RequestTrace:
    """An ASGI application whose requests are recorded as spans, some of them.

    The reply to one that is recorded has its trace in the header x-trace-id.

    Args:
        application: The application.
    """

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        span: Span | None = None
        if is_tracing() and scope["type"] == "http" and scope["path"] not in _UNTRACED:
            span = begin_request(scope["method"], Headers(scope=scope).get(TRACEPARENT))
        if span is None:
            await self._application(scope, receive, send)
            return
        await self._record(span, scope, receive, send)

    async def _record(self, span: Span, scope: Scope, receive: Receive, send: Send) -> None:
        error = ""
        span.attributes["http.request.method"] = scope["method"]

        async def send_traced(message: Message) -> None:
            nonlocal error
            if message["type"] == "http.response.start":
                status: Any = message["status"]
                span.attributes["http.response.status_code"] = status
                error = str(status) if status >= 500 else ""
                MutableHeaders(scope=message)[TRACE_ID_KEY] = span.trace_id
            await send(message)

        try:
            await self._application(scope, receive, send_traced)
        except BaseException as failure:
            error = type(failure).__name__
            raise
        finally:
            span.end(error)


def note_route(verb: str, path: str) -> Span | None:
    """Names the span of the request that runs now after its route.

    Args:
        verb: Its method.
        path: Path of the route, without values of parameters.
    Returns: The span; None if the request is not recorded.
    """
    span = current_span()
    if span is not None and span.kind is SpanKind.SERVER:
        span.name = f"{verb} {path}"
        span.attributes["http.route"] = path
    return span

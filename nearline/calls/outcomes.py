"""Ends of the calls that a server answers: metrics, audit log, spans, slow log, and errors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Sequence
from typing import Any, TypeAlias

import grpc
from prometheus_client import Histogram

from nearline import status
from nearline.access.method_guard import MethodGuard, current_caller
from nearline.access.rate_limiter import RunningCall
from nearline.admission import Admission
from nearline.channel_security import LANE_KEY
from nearline.client_metrics import CALL_BUCKETS
from nearline.contract import Lane
from nearline.errors import InternalError, NearlineError, Overloaded, Unsupported
from nearline.tracing.recorded_calls import end_call, exemplar, trace_trailers
from nearline.tracing.slow_requests import SlowRequestLog
from nearline.tracing.spans import Span
from nearline.v1 import embedding_pb2

REQUEST_ID_KEY = "x-request-id"
_MAX_REQUEST_ID = 128
# Strings: the classes are generic in the stubs only.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_log = logging.getLogger(__name__)
_calls = Histogram(
    "nearline_server_call_seconds",
    "Time of a call inside the server, by method and gRPC status.",
    ("method", "code"),
    buckets=CALL_BUCKETS,
)


class MethodCalls:
    """Outcomes of the calls of one method.

    name: Service and method.
    """

    def __init__(
        self,
        name: str,
        rights: MethodGuard,
        admission: Admission,
        slow: SlowRequestLog,
    ) -> None:
        self.name = name
        self._admission = admission
        self._method = name.rpartition("/")[2]
        self._rights = rights
        self._slow = slow
        self._succeeded = _calls.labels(self._method, "OK")

    def succeed(
        self,
        context: Context,
        start: float,
        counted: RunningCall | None,
        span: Span | None,
        request: Any,
        reply: Any,
    ) -> None:
        """Records a call that succeeded; of a stream, with the reply that has an info."""
        if counted is not None or span is not None:
            limits = () if counted is None else counted.trailers()
            context.set_trailing_metadata((*limits, *trace_trailers(span)))
        seconds = time.perf_counter() - start
        self._succeeded.observe(seconds, exemplar(span))
        if self._rights.records:
            self._rights.record("OK", context, request_id_of(context))
        slow = self._slow_log(seconds, context, request)
        end_call(span, slow, self.name, "OK", seconds, request, reply)

    def fail(
        self, error: BaseException, context: Context, start: float, span: Span | None, request: Any
    ) -> tuple[NearlineError, str] | None:
        """Records a call that failed.

        Returns: The error for its caller and its request id; None if gRPC handles it itself.
        """
        code, request_id = "CANCELLED", request_id_of(context)
        end = None
        if isinstance(error, grpc.aio.AbortError):
            code = "ABORTED_BY_HANDLER"
        elif not isinstance(error, asyncio.CancelledError | GeneratorExit):
            if isinstance(error, NotImplementedError):
                # Generated servicers raise it for methods added to the protocol later.
                error = Unsupported(f"{self._method} is not served by this version of the service")
            elif not isinstance(error, NearlineError):
                error = self._internal(error, request_id)
            code, end = status.status_code(error).name, (error, request_id)
        seconds = time.perf_counter() - start
        _calls.labels(self._method, code).observe(seconds, exemplar(span))
        if self._rights.records:
            self._rights.record(code, context, request_id)
        end_call(span, self._slow_log(seconds, context, request), self.name, code, seconds, request)
        return end

    def _slow_log(self, seconds: float, context: Context, request: Any) -> SlowRequestLog | None:
        """Returns the log that a call belongs into; None if it was quick, or nobody waited."""
        slow = self._slow.is_slow(seconds) and not asks_for_bulk(context, request)
        return self._slow if slow else None

    async def abort(
        self,
        end: tuple[NearlineError, str] | None,
        context: Context,
        counted: RunningCall | None,
        span: Span | None,
        *,
        begun: bool,
    ) -> None:
        """Ends a call that failed, with the status of its error.

        gRPC keeps the error and all frames that it names, with the request in them, until the next
        collection of garbage: release them first.
        """
        if end is None:
            return
        error, request_id = end
        _release_frames(error)
        left = () if counted is None else counted.trailers()
        if isinstance(error, Overloaded) and not begun:
            if counted is not None:
                counted.end()
            await self._hold(context)
        await abort_call(context, error, (REQUEST_ID_KEY, request_id), *left, *trace_trailers(span))

    async def _hold(self, context: Context) -> None:
        """Holds a refusal back if there are many; see `Admission.hold_s`."""
        if current_caller().through_service:
            # Its connection carries the calls of others, too.
            return
        if hold_s := self._admission.hold_s():
            left_s = context.time_remaining()
            # Until its caller nearly gives up: else callers in a hurry would be refused more often.
            await asyncio.sleep(hold_s if left_s is None else min(hold_s, 0.8 * left_s))

    def _internal(self, error: BaseException, request_id: str) -> InternalError:
        error_id = secrets.token_hex(8)
        _log.error(
            "unexpected error in a call",
            exc_info=error,
            extra={"error_id": error_id, "method": self._method, "request_id": request_id},
        )
        return InternalError(
            f"internal error {error_id}; the server's log has the cause under this id"
        )


def _release_frames(error: BaseException) -> None:
    """Drops the tracebacks of an error and of its causes."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            waiting += (one.__cause__, one.__context__)


def asks_for_bulk(context: Context, request: Any = None) -> bool:
    """Returns whether a call, or the request that it brought, says that nobody waits for it."""
    in_request = getattr(request, "lane", None) == embedding_pb2.LANE_BULK
    return in_request or (LANE_KEY, Lane.BULK.value) in (context.invocation_metadata() or ())


def request_id_of(context: Context) -> str:
    """Returns the caller's request id, or a new one."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY:
            return str(value)[:_MAX_REQUEST_ID]
    return secrets.token_hex(8)


async def abort_call(context: Context, error: NearlineError, *trailers: tuple[str, str]) -> None:
    """Ends a call with an error, its details, and more trailers."""
    code, message = status.status_code(error), status.wire_message(error)
    await end_early(context, code, message, (*status.to_trailers(error), *trailers))


async def end_early(
    context: Any, code: grpc.StatusCode, message: str, trailers: Sequence[Any]
) -> None:
    """Ends a call with a status, or silently if its caller has gone."""
    with contextlib.suppress(grpc.aio.InternalError):
        await context.abort(code, message, tuple(trailers))
    # gRPC would log that the status could not be sent, with a traceback: as often as callers like.
    raise asyncio.CancelledError

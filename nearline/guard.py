"""What happens around every call of a server: readiness, request id, metrics, error mapping."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from prometheus_client import Histogram

from nearline import status
from nearline.errors import DeadlineExceeded, InternalError, NearlineError, NotReady, Unsupported

REQUEST_ID_KEY = "x-request-id"
request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")

_log = logging.getLogger(__name__)
_calls = Histogram(
    "nearline_server_call_seconds",
    "Time of a call inside the server, by method and gRPC status.",
    ("method", "code"),
    buckets=(0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 2, 4, 8, 16),
)
# A process-wide prefix and a counter: unique like a UUID, without asking the kernel per call.
_prefix = secrets.token_hex(6)
_numbers = itertools.count()

# Strings: the classes are generic in the stubs only.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def time_left_s(context: Context) -> float | None:
    """Gives the seconds until the caller's deadline; None where the caller set none."""
    left: float | None = context.time_remaining()
    return left


class CallGuard(grpc.aio.ServerInterceptor):
    """Wraps every nearline method once; other services (health, reflection) pass untouched.

    `open` is False until the service is ready: calls are then refused with UNAVAILABLE.
    """

    def __init__(self) -> None:
        self.open = False
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Gives the guarded handler of a method."""
        path = handler_call_details.method
        wrapped = self._wrapped.get(path)
        if wrapped is not None:
            return wrapped
        handler = await continuation(handler_call_details)
        if handler is None or not path.startswith("/nearline."):
            return handler
        wrapped = self._wrap(path.rpartition("/")[2], handler)
        self._wrapped[path] = wrapped
        return wrapped

    def _wrap(self, method: str, handler: Handler) -> Handler:
        codec: dict[str, Any] = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary is not None:
            inner: Any = handler.unary_unary

            async def unary(request: Any, context: Context) -> Any:
                call = _Call(method, context)
                try:
                    self._admit(context)
                    reply = await inner(request, context)
                except BaseException as error:
                    await call.fail(error)
                    raise
                call.end("OK")
                return reply

            return grpc.unary_unary_rpc_method_handler(unary, **codec)
        if handler.stream_stream is not None:
            inner = handler.stream_stream

            async def stream(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
                call = _Call(method, context)
                try:
                    self._admit(context)
                    async for reply in inner(requests, context):
                        yield reply
                except BaseException as error:
                    await call.fail(error)
                    raise
                call.end("OK")

            return grpc.stream_stream_rpc_method_handler(stream, **codec)
        raise TypeError(
            f"{method}: only unary and bidirectional methods are guarded. This is a bug."
        )

    def _admit(self, context: Context) -> None:
        if not self.open:
            raise NotReady("the service is still loading; wait for its health to be SERVING")
        left = context.time_remaining()
        if left is not None and left <= 0:
            raise DeadlineExceeded("the deadline passed before the call began; raise the timeout")


class _Call:
    """Request id, clock and outcome of one call."""

    __slots__ = ("_context", "_method", "_start")

    def __init__(self, method: str, context: Context) -> None:
        self._method = method
        self._context = context
        self._start = time.perf_counter()
        given = next(
            (value for key, value in context.invocation_metadata() or () if key == REQUEST_ID_KEY),
            None,
        )
        request_id.set(str(given) if given else f"{_prefix}-{next(_numbers):x}")

    def end(self, code: str) -> None:
        _calls.labels(self._method, code).observe(time.perf_counter() - self._start)

    async def fail(self, error: BaseException) -> None:
        """Ends the call with the status of the error; returns where grpc must see the error."""
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            self.end("CANCELLED")
            return
        if isinstance(error, grpc.aio.AbortError):
            self.end("ABORTED_BY_HANDLER")
            return
        if isinstance(error, NotImplementedError):
            # What the generated servicer raises for a method of the contract that came later.
            error = Unsupported(f"{self._method} is not served by this version of the service")
        elif not isinstance(error, NearlineError):
            error = self._internal(error)
        code = status.status_code(error)
        self.end(code.name)
        trailers = (*status.to_trailers(error), (REQUEST_ID_KEY, request_id.get()))
        await self._context.abort(code, error.message, trailers)

    def _internal(self, error: BaseException) -> InternalError:
        error_id = secrets.token_hex(8)
        _log.error(
            "unexpected error in a call",
            exc_info=error,
            extra={"error_id": error_id, "method": self._method, "request_id": request_id.get()},
        )
        return InternalError(
            f"internal error {error_id}; the server's log has the cause under this id"
        )

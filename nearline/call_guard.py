"""The wrapper of every server method: readiness, request id, metrics, error mapping."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeAlias

import grpc
from prometheus_client import Histogram

from nearline import status
from nearline.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    NearlineError,
    NotReady,
    Overloaded,
    Unsupported,
)

REQUEST_ID_KEY = "x-request-id"
_MAX_REQUEST_ID = 128
_RETRY_AFTER_S = 0.25
# Operators and other services need these most when a service is overloaded.
_UNLIMITED_SERVICE = "nearline.v1.AdminService"
_UNLIMITED_METHODS = frozenset({"GetInfo", "GetStatus", "LoadSnapshot", "UnloadSnapshot"})

_log = logging.getLogger(__name__)
_calls = Histogram(
    "nearline_server_call_seconds",
    "Time of a call inside the server, by method and gRPC status.",
    ("method", "code"),
    buckets=(0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 2, 4, 8, 16),
)

# Strings: the classes are generic in the stubs only.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def time_left_s(context: Context) -> float | None:
    """Returns the seconds until the caller's deadline; None if the caller set none."""
    left_s: float | None = context.time_remaining()
    return left_s


class CallGuard:
    """Takes the place of the server while servicers are added, and wraps each of their methods.

    Not an interceptor: grpc.aio looks up and awaits interceptors on every call.
    While `open` is False, calls are refused with UNAVAILABLE. Requests that cannot be decoded are
    refused with INVALID_ARGUMENT.

    Args:
        server: The server that receives the wrapped methods.
        max_calls: Calls that may run at once; more are refused with RESOURCE_EXHAUSTED.
    """

    def __init__(self, server: grpc.aio.Server, max_calls: int) -> None:
        self.open = False
        self._server = server
        self._max_calls = max_calls
        self._running = 0

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Does nothing: generated code registers each service twice, the second time by name."""

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, Handler]
    ) -> None:
        """Adds the methods of a service, guarded."""
        guarded = {}
        for name, handler in method_handlers.items():
            limited = service_name != _UNLIMITED_SERVICE and name not in _UNLIMITED_METHODS
            guarded[name] = self._wrap(name, handler, int(limited))
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service_name, guarded),)
        )

    def _wrap(self, method: str, handler: Handler, weight: int) -> Handler:
        """Returns a guarded handler. weight: 1 if its calls count as running, else 0."""
        codec: dict[str, Any] = {
            "request_deserializer": _tolerant(handler.request_deserializer, method),
            "response_serializer": handler.response_serializer,
        }
        call = _Calls(method)
        streams_in = handler.stream_unary is not None or handler.stream_stream is not None
        decoded = _decoded_stream if streams_in else _decoded
        if handler.unary_unary is not None or handler.stream_unary is not None:
            inner: Any = handler.unary_unary or handler.stream_unary

            # One request, or an iterator of requests, as the method expects.
            async def unary(request: Any, context: Context) -> Any:
                start = time.perf_counter()
                self._running += weight
                try:
                    self._admit(context, weight)
                    reply = await inner(decoded(request), context)
                except BaseException as error:
                    await call.fail(error, context, start)
                    raise
                finally:
                    self._running -= weight
                call.succeed(start)
                return reply

            if handler.unary_unary is not None:
                return grpc.unary_unary_rpc_method_handler(unary, **codec)
            return grpc.stream_unary_rpc_method_handler(unary, **codec)
        inner = handler.unary_stream or handler.stream_stream

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            start = time.perf_counter()
            self._running += weight
            try:
                self._admit(context, weight)
                async for reply in inner(decoded(request), context):
                    yield reply
            except BaseException as error:
                await call.fail(error, context, start)
                raise
            finally:
                self._running -= weight
            call.succeed(start)

        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(stream, **codec)
        return grpc.stream_stream_rpc_method_handler(stream, **codec)

    def _admit(self, context: Context, weight: int) -> None:
        if not self.open:
            raise NotReady("the service is still loading; wait for its health to be SERVING")
        left_s = context.time_remaining()
        if left_s is not None and left_s <= 0:
            raise DeadlineExceeded("the deadline passed before the call began; raise the timeout")
        if weight and self._running > self._max_calls:
            raise Overloaded(
                f"{self._running - 1:,} calls are running, and --max-calls is {self._max_calls:,}; "
                "retry later, send fewer calls at once, or add servers",
                retry_after_s=_RETRY_AFTER_S,
            )


class _Undecodable:
    """Takes the place of a request that could not be decoded, so that the guard refuses it."""

    def __init__(self, method: str, size: int) -> None:
        self.error = InvalidRequest(
            f"the {size:,} bytes are not a request of {method}: they are damaged, nested more than "
            "100 messages deep, or contain text that is not UTF-8; build requests with the code "
            "generated from Nearline's proto files"
        )


def _tolerant(decode: Callable[[bytes], Any] | None, method: str) -> Callable[[bytes], Any] | None:
    """Returns a decoder that never raises: gRPC would reply UNKNOWN and log a traceback."""
    if decode is None:
        return None

    def tolerant(data: bytes) -> Any:
        try:
            return decode(data)
        except Exception:
            return _Undecodable(method, len(data))

    return tolerant


def _decoded(request: Any) -> Any:
    """Returns a request. Raises: InvalidRequest: it could not be decoded."""
    if type(request) is _Undecodable:
        raise request.error
    return request


async def _decoded_stream(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Yields the requests of a stream. Raises: InvalidRequest: one could not be decoded."""
    async for request in requests:
        yield _decoded(request)


class _Calls:
    """Outcomes of the calls of one method."""

    def __init__(self, method: str) -> None:
        self._method = method
        self._succeeded = _calls.labels(method, "OK")

    def succeed(self, start: float) -> None:
        self._succeeded.observe(time.perf_counter() - start)

    async def fail(self, error: BaseException, context: Context, start: float) -> None:
        """Aborts the call with the status of the error; returns if gRPC handles it itself."""
        spent_s = time.perf_counter() - start
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            _calls.labels(self._method, "CANCELLED").observe(spent_s)
            return
        if isinstance(error, grpc.aio.AbortError):
            _calls.labels(self._method, "ABORTED_BY_HANDLER").observe(spent_s)
            return
        request_id = _request_id(context)
        if isinstance(error, NotImplementedError):
            # Generated servicers raise it for methods added to the protocol later.
            error = Unsupported(f"{self._method} is not served by this version of the service")
        elif not isinstance(error, NearlineError):
            error = self._internal(error, request_id)
        code = status.status_code(error)
        _calls.labels(self._method, code.name).observe(spent_s)
        trailers = (*status.to_trailers(error), (REQUEST_ID_KEY, request_id))
        await context.abort(code, status.wire_message(error), trailers)

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


def _request_id(context: Context) -> str:
    """Returns the caller's request id, or a new one; called only for failed calls."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY:
            return str(value)[:_MAX_REQUEST_ID]
    return secrets.token_hex(8)

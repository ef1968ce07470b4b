"""The wrapper of every server method: readiness, rights, request id, metrics, spans, errors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, TypeAlias

import grpc

from nearline.access.access_control import AccessControl
from nearline.access.audit_log import AuditLog
from nearline.access.method_guard import MethodGuard, current_caller
from nearline.access.rate_limiter import RateLimiter, RunningCall
from nearline.admission import Admission, EndCall
from nearline.allocator import MemoryReturn
from nearline.calls.method_kinds import (
    BULK_METHODS,
    LASTING_METHODS,
    is_limited,
    most_request_bytes,
    slow_limit_ms,
)
from nearline.calls.outcomes import Context as Context, MethodCalls, abort_call, asks_for_bulk
from nearline.calls.request_reader import RequestReader
from nearline.contract import Lane
from nearline.errors import (
    DeadlineExceeded,
    NearlineError,
    NotReady,
    Unsupported,
)
from nearline.tracing.call_facts import has_info
from nearline.tracing.slow_requests import SlowRequestLog
from nearline.tracing.spans import begin_call, stage

# Services of gRPC itself, which reply before the service is ready.
_PUBLIC_SERVICES = frozenset({"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"})
# Their requests name a service or a symbol.
_PUBLIC_BYTES = 1 << 16
# A stream of replies gives its turn to others when its caller takes longer than this for one.
_TAKE_S = 1.0

_log = logging.getLogger(__name__)

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def time_left_s(context: Context) -> float | None:
    """Returns the seconds until the caller's deadline; None if the caller set none."""
    left_s: float | None = context.time_remaining()
    return left_s


class CallGuard:
    """Takes the place of the server while servicers are added, and wraps each of their methods.

    Not an interceptor: grpc.aio looks up and awaits interceptors on every call.
    While `open` is False, calls are refused with UNAVAILABLE, except those of gRPC's own services
    for health and reflection. Requests that cannot be decoded are refused with INVALID_ARGUMENT.

    Args:
        server: The server that receives the wrapped methods.
        max_calls: Calls that may run and wait; more are refused with RESOURCE_EXHAUSTED.
        access: Identifies callers. Optional; None lets everybody call everything.
        audit: Records audited calls and refusals. Optional.
        limiter: Limits the calls of each tenant and key. Optional.
        stream_idle_s: Seconds after which a stream that sends no request is ended.
        slow_request_ms: Milliseconds beyond which a call is logged as slow; 0 logs none.
    """

    def __init__(
        self,
        server: grpc.aio.Server,
        max_calls: int,
        access: AccessControl | None = None,
        audit: AuditLog | None = None,
        limiter: RateLimiter | None = None,
        stream_idle_s: float = 600.0,
        slow_request_ms: float = 0.0,
    ) -> None:
        self._slow_ms = slow_request_ms
        self._slow = SlowRequestLog(slow_request_ms)
        self._stream_idle_s = stream_idle_s
        self.open = False
        self._limiter = limiter
        self._access = access or AccessControl()
        self._audit = audit
        self._server = server
        self._admission = Admission(max_calls)
        self._memory = MemoryReturn()

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Does nothing: generated code registers each service twice, the second time by name."""

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, Handler]
    ) -> None:
        """Adds the methods of a service, guarded."""
        guarded = {}
        for name, handler in method_handlers.items():
            if service_name in _PUBLIC_SERVICES:
                guarded[name] = _public(name, handler, self._stream_idle_s)
                continue
            limited = is_limited(service_name, name)
            rights = MethodGuard(service_name, name, self._access, self._audit, self._limiter)
            guarded[name] = self._wrap(service_name, name, handler, limited, rights)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service_name, guarded),)
        )

    def refuse_other_methods(self, services: Sequence[str]) -> None:
        """Refuses calls of all methods that were not added, with UNIMPLEMENTED and a remedy.

        Add no method afterwards.

        Args:
            services: Names of the services, for the message.
        """
        self._server.add_generic_rpc_handlers((_OtherMethods(services),))

    def _wrap(
        self, service: str, method: str, handler: Handler, limited: bool, rights: MethodGuard
    ) -> Handler:
        """Returns a guarded handler. limited: Whether it may be refused because others run.

        For gRPC all requests are streams of bytes: it would read the one request of a call before
        it asks who calls. On the wire, a stream of one request is a request.
        """
        streams_in = handler.stream_unary is not None or handler.stream_stream is not None
        lasting = None
        if streams_in or method in LASTING_METHODS:
            lasting = Lane.BULK if streams_in else Lane.INTERACTIVE
        reader = RequestReader(
            handler.request_deserializer,
            method,
            most_request_bytes(method),
            self._stream_idle_s,
            self._memory.note_message,
        )
        # The limit of this service, which has answers or searches.
        limit_ms = slow_limit_ms(
            service,
            method,
            streams_in=streams_in,
            search_ms=self._slow_ms,
            answer_ms=self._slow_ms,
        )
        slow = self._slow.with_limit(limit_ms)
        call = MethodCalls(f"{service}/{method}", rights, self._admission, slow)
        serialize: Any = handler.response_serializer
        if handler.unary_unary is not None or handler.stream_unary is not None:
            inner: Any = handler.unary_unary or handler.stream_unary

            async def unary(_: Any, context: Context) -> bytes:
                start = time.perf_counter()
                span = begin_call(call.name, context.invocation_metadata)
                counted = end_call = request = None
                try:
                    counted = await self._identify(rights, context)
                    data = None if streams_in else await reader.read(context)
                    with stage("admission"):
                        end_call = await self._admit(method, context, limited, lasting)
                    request = reader.requests(context, data, counted, self._turn)
                    data = None
                    reply = await inner(rights.check(request), context)
                    sent: bytes = serialize(reply)
                    self._count_unread(context, len(sent))
                except BaseException as error:
                    end = call.fail(error, context, start, span, request)
                    request = data = None
                    await call.abort(end, context, counted, span, begun=end_call is not None)
                    raise
                finally:
                    if end_call is not None:
                        end_call()
                call.succeed(context, start, counted, span, request, reply)
                return sent

            return grpc.stream_unary_rpc_method_handler(unary)
        inner = handler.unary_stream or handler.stream_stream

        async def stream(_: Any, context: Context) -> AsyncIterator[Any]:
            start = time.perf_counter()
            span = begin_call(call.name, context.invocation_metadata)
            counted = end_call = request = informing = None

            def end_turn() -> None:
                nonlocal end_call
                if end_call is not None:
                    end_call()
                    end_call = None

            try:
                counted = await self._identify(rights, context)
                data = None if streams_in else await reader.read(context)
                with stage("admission"):
                    end_call = await self._admit(method, context, limited, lasting)
                request = reader.requests(context, data, counted)
                data = None
                async with rights.valid_credential():
                    async for reply in inner(rights.check(request), context):
                        if informing is None and has_info(reply):
                            informing = reply
                        if lasting is not None:
                            yield reply
                            continue
                        timer = asyncio.get_running_loop().call_later(_TAKE_S, end_turn)
                        yield reply
                        timer.cancel()
                        if end_call is None:
                            end_call = await self._admit(method, context, limited, None)
            except BaseException as error:
                end = call.fail(error, context, start, span, request)
                request = data = None
                await call.abort(end, context, counted, span, begun=end_call is not None)
                raise
            finally:
                end_turn()
            call.succeed(context, start, counted, span, request, informing)

        return grpc.stream_stream_rpc_method_handler(stream, response_serializer=serialize)

    async def _identify(self, rights: MethodGuard, context: Any) -> RunningCall | None:
        """Identifies the caller of a call, which counts against its limits until gRPC ends it.

        That is once its reply has been sent, so callers who do not read have it for so long.
        """
        counted = await rights.identify(context)
        if counted is not None:
            context.add_done_callback(lambda _: counted.end())
        if not self.open:
            raise NotReady("the service is still loading; wait for its health to be SERVING")
        return counted

    def _count_unread(self, context: Any, size: int) -> None:
        """Counts a reply until its caller has taken it. size: In bytes."""
        taken = self._admission.hold_reply(current_caller().tenant, size)
        context.add_done_callback(lambda _: taken())

    async def _admit(
        self, method: str, context: Context, limited: bool, lasting: Lane | None
    ) -> EndCall | None:
        """Begins a call, if it may be; returns what ends it.

        Args:
            limited: Whether it may be refused because others run.
            lasting: The lane of a stream that may last; None for other calls.
        """
        left_s = context.time_remaining()
        if left_s is not None and left_s <= 0:
            raise DeadlineExceeded("the deadline passed before the call began; raise the timeout")
        if not limited:
            return None
        tenant = current_caller().tenant
        if lasting is not None:
            return self._admission.begin_stream(tenant, lasting)
        bulk = method in BULK_METHODS or asks_for_bulk(context)
        lane = Lane.BULK if bulk else Lane.INTERACTIVE
        return await self._admission.begin(tenant, left_s, lane)

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Waits for the turn of a request in a stream of writes, and lasts as long as it runs."""
        end = await self._admission.begin(current_caller().tenant, None, Lane.BULK)
        try:
            yield
        finally:
            end()


def _public(method: str, handler: Handler, idle_s: float) -> Handler:
    """Returns a handler of a service of gRPC's own, whose errors reach the caller.

    idle_s: As in `RequestReader`.
    """
    reader = RequestReader(handler.request_deserializer, method, _PUBLIC_BYTES, idle_s)
    inner: Any = handler.unary_unary or handler.unary_stream or handler.stream_stream

    async def unary(_: Any, context: Context) -> Any:
        try:
            return await inner(reader.decode(await reader.read(context)), context)
        except NearlineError as error:
            await abort_call(context, error)

    async def stream(_: Any, context: Context) -> AsyncIterator[Any]:
        try:
            data = None if handler.stream_stream else await reader.read(context)
            async for reply in inner(reader.requests(context, data), context):
                yield reply
        except NearlineError as error:
            await abort_call(context, error)

    serialize = handler.response_serializer
    if handler.unary_unary is not None:
        return grpc.stream_unary_rpc_method_handler(unary, response_serializer=serialize)
    return grpc.stream_stream_rpc_method_handler(stream, response_serializer=serialize)


class _OtherMethods(grpc.GenericRpcHandler):
    """Refuses calls; gRPC asks it last. See `CallGuard.refuse_other_methods`."""

    def __init__(self, services: Sequence[str]) -> None:
        self._services = " and ".join(services) or "health checks only"

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """Returns the handler of a call that no method takes."""
        method = handler_call_details.method

        # On the wire, a stream of one request is a request.
        async def refuse(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
            error = Unsupported(
                f"this server has {self._services}, and no method {method!r}; check that the port "
                "is the right service's, and that client and server are of the same version"
            )
            await abort_call(context, error)
            yield b""  # Makes this a generator.

        return grpc.stream_stream_rpc_method_handler(refuse)

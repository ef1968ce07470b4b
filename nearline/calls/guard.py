"""The wrapper of every server method: readiness, rights, request id, metrics, spans, errors."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import grpc

from nearline.access.access_control import AccessControl
from nearline.access.audit_log import AuditLog
from nearline.access.method_guard import MethodGuard, current_caller
from nearline.access.rate_limiter import RateLimiter
from nearline.admission import Admission, EndCall
from nearline.allocator import MemoryReturn
from nearline.calls.method_kinds import (
    BULK_METHODS,
    LASTING_METHODS,
    is_limited,
    slow_limit_ms,
)
from nearline.calls.outcomes import Context as Context, MethodCalls, abort_call
from nearline.channel_security import LANE_KEY
from nearline.contract import Lane
from nearline.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NotReady,
    Unsupported,
)
from nearline.request_decoder import decoded_request, decoded_stream, tolerant_decoder
from nearline.tracing.call_facts import has_info
from nearline.tracing.slow_requests import SlowRequestLog
from nearline.tracing.spans import stage
from nearline.tracing.tracer import begin_call

# Services of gRPC itself, which reply before the service is ready.
_PUBLIC_SERVICES = frozenset({"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"})

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
        """Returns a guarded handler. limited: Whether it may be refused because others run."""
        codec: dict[str, Any] = {
            "request_deserializer": tolerant_decoder(
                handler.request_deserializer, method, self._memory.note_message
            ),
            "response_serializer": handler.response_serializer,
        }
        streams_in = handler.stream_unary is not None or handler.stream_stream is not None
        decoded = partial(decoded_stream, self._stream_idle_s) if streams_in else decoded_request
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
        if handler.unary_unary is not None or handler.stream_unary is not None:
            inner: Any = handler.unary_unary or handler.stream_unary

            # One request, or an iterator of requests, as the method expects.
            async def unary(request: Any, context: Context) -> Any:
                start = time.perf_counter()
                span = begin_call(call.name, context.invocation_metadata)
                counted = end_call = None
                try:
                    counted = await rights.identify(context)
                    with stage("admission"):
                        end_call = await self._admit(method, context, limited, streams=streams_in)
                    reply = await inner(rights.check(decoded(request)), context)
                except BaseException as error:
                    end = call.fail(error, context, start, span, request)
                    request = None
                    await call.abort(end, context, counted, span, begun=end_call is not None)
                    raise
                finally:
                    if end_call is not None:
                        end_call()
                    if counted is not None:
                        counted.end()
                call.succeed(context, start, counted, span, request, reply)
                return reply

            if handler.unary_unary is not None:
                return grpc.unary_unary_rpc_method_handler(unary, **codec)
            return grpc.stream_unary_rpc_method_handler(unary, **codec)
        inner = handler.unary_stream or handler.stream_stream
        lasts = streams_in or method in LASTING_METHODS

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            start = time.perf_counter()
            span = begin_call(call.name, context.invocation_metadata)
            counted = end_call = informing = None
            try:
                counted = await rights.identify(context)
                with stage("admission"):
                    end_call = await self._admit(method, context, limited, streams=lasts)
                async for reply in inner(rights.check(decoded(request)), context):
                    if informing is None and has_info(reply):
                        informing = reply
                    yield reply
            except BaseException as error:
                end = call.fail(error, context, start, span, request)
                request = None
                await call.abort(end, context, counted, span, begun=end_call is not None)
                raise
            finally:
                if end_call is not None:
                    end_call()
                if counted is not None:
                    counted.end()
            call.succeed(context, start, counted, span, request, informing)

        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(stream, **codec)
        return grpc.stream_stream_rpc_method_handler(stream, **codec)

    async def _admit(
        self, method: str, context: Context, limited: bool, *, streams: bool
    ) -> EndCall | None:
        """Begins a call, if it may be; returns what ends it.

        Args:
            limited: Whether it may be refused because others run.
            streams: Whether it is a stream that may last.
        """
        if not self.open:
            raise NotReady("the service is still loading; wait for its health to be SERVING")
        left_s = context.time_remaining()
        if left_s is not None and left_s <= 0:
            raise DeadlineExceeded("the deadline passed before the call began; raise the timeout")
        if not limited:
            return None
        tenant = current_caller().tenant
        if streams:
            return self._admission.begin_stream(tenant)
        bulk = method in BULK_METHODS or _asks_for_bulk(context)
        lane = Lane.BULK if bulk else Lane.INTERACTIVE
        return await self._admission.begin(tenant, left_s, lane)


def _asks_for_bulk(context: Context) -> bool:
    """Returns whether the metadata of a call say that nobody waits for its answer."""
    return (LANE_KEY, Lane.BULK.value) in (context.invocation_metadata() or ())


def _public(method: str, handler: Handler, idle_s: float) -> Handler:
    """Returns a handler of a service of gRPC's own that refuses what cannot be decoded.

    idle_s: As in `decoded_stream`.
    """
    codec: dict[str, Any] = {
        "request_deserializer": tolerant_decoder(handler.request_deserializer, method),
        "response_serializer": handler.response_serializer,
    }
    inner: Any = handler.unary_unary or handler.unary_stream or handler.stream_stream

    # Also the handler of a stream of replies, which it writes to the context.
    async def one(request: Any, context: Context) -> Any:
        try:
            request = decoded_request(request)
        except InvalidRequest as error:
            await abort_call(context, error)
        return await inner(request, context)

    async def stream(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        try:
            async for reply in inner(decoded_stream(idle_s, requests), context):
                yield reply
        except (InvalidRequest, DeadlineExceeded) as error:
            await abort_call(context, error)

    if handler.unary_unary is not None:
        return grpc.unary_unary_rpc_method_handler(one, **codec)
    if handler.unary_stream is not None:
        return grpc.unary_stream_rpc_method_handler(one, **codec)
    return grpc.stream_stream_rpc_method_handler(stream, **codec)


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

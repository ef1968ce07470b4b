"""Passes calls of other services on to them, so that one address is enough for all."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import Counter as CounterMetric, Histogram

from nearline import status
from nearline.access.access_control import AccessControl
from nearline.access.api_keys import KeyExpired
from nearline.access.audit_log import AuditLog
from nearline.access.caller import Caller
from nearline.access.rights import METHODS
from nearline.calls.guard import Handler, time_left_s
from nearline.calls.method_kinds import most_request_bytes
from nearline.calls.outcomes import REQUEST_ID_KEY, Context, abort_call, end_early, request_id_of
from nearline.calls.request_reader import RequestReader
from nearline.channel import ServiceChannel, send_requests
from nearline.channel_security import ChannelSecurity
from nearline.counts import add_to
from nearline.errors import (
    NearlineError,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
    Unsupported,
)
from nearline.tls import is_loopback
from nearline.tracing.client_calls import end_rpc
from nearline.tracing.recorded_calls import exemplar, trace_trailers, with_trace
from nearline.tracing.spans import begin_call

# To each service. A server runs a bounded number of calls of one connection (--max-streams), and
# the others wait unseen; with the least busy one of several, no call waits behind those of others.
_CONNECTIONS: Final = 8
_RETRY_AFTER_S: Final = 0.25
_HEALTH_EVERY_S: Final = 1.0
_HEALTH_TIMEOUT_S: Final = 3.0
# In the metadata of a call that was passed on.
_FORWARDED: Final = ("nearline-forwarded", "1")
_CREDENTIAL: Final = "authorization"
_Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]
SetHealth: TypeAlias = Callable[[str, int], None]

_calls = Histogram(
    "nearline_server_forwarded_seconds",
    "Time of a call that is passed on to another service, by service called and gRPC status.",
    ("target", "code"),
    buckets=(0.001, 0.004, 0.016, 0.064, 0.256, 1, 4, 16, 64),
)
_refused = CounterMetric(
    "nearline_server_refused_forwards_total",
    "Calls of other services refused because too many are being passed on.",
)


@dataclass(frozen=True, slots=True)
class ForwardedService:
    """A service whose calls are passed on.

    service: Its descriptor.
    address: Where it is, host:port; empty if it is not known.
    option: The setting with its address, for errors.
    """

    service: ServiceDescriptor
    address: str
    option: str


class Forwarder(grpc.GenericRpcHandler):
    """Passes calls on by the name of their service, as bytes: requests are not decoded here.

    The service behind decides what a caller may do, by the credential and the other metadata that
    the caller sent. Where this server requires credentials, it lets only callers pass that it knows
    and that have the right of the method in some collection, as the service behind may trust its
    network. Calls that are passed on count apart from those that this server answers, and do not
    wait for their turn here: a service that is slow takes no place from searches.

    Args:
        services: The services.
        max_calls: Calls that may be passed on at once; half of them for one caller.
        access: Identifies callers. Optional; None lets everybody pass.
        audit: Records refusals. Optional.
        stream_idle_s: Longest wait for the request of a call, in seconds.
    """

    def __init__(
        self,
        services: Sequence[ForwardedService],
        max_calls: int,
        access: AccessControl | None = None,
        audit: AuditLog | None = None,
        stream_idle_s: float = 600.0,
    ) -> None:
        places = _Places(max_calls)
        access = access or AccessControl()
        self._routes = {
            one.service.full_name: _Route(one, places, access, audit, stream_idle_s)
            for one in services
        }
        self._polls: list[asyncio.Task[None]] = []

    @property
    def names(self) -> Sequence[str]:
        """Full names of the services that have an address."""
        return [name for name, route in self._routes.items() if route.address]

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """Returns the handler of a method of a forwarded service; None for other methods."""
        _, _, path = str(handler_call_details.method).partition("/")
        name, _, method = path.partition("/")
        route = self._routes.get(name)
        return None if route is None else route.handler(method)

    def start(self, set_health: SetHealth) -> None:
        """Reports the health of each service, as itself reports it, from now on.

        Args:
            set_health: Takes the name of a service and its status.
        """
        for name in self.names:
            set_health(name, health_pb2.HealthCheckResponse.NOT_SERVING)
            poll = asyncio.create_task(self._routes[name].poll_health(set_health))
            self._polls.append(poll)

    async def close(self) -> None:
        """Closes the connections to the services."""
        for poll in self._polls:
            poll.cancel()
        await asyncio.gather(*self._polls, return_exceptions=True)
        for route in self._routes.values():
            await route.close()


class _Places:
    """Counts calls that are passed on. Raises Overloaded beyond a bound."""

    def __init__(self, max_calls: int) -> None:
        self._max_calls = max_calls
        self._running: Counter[str] = Counter()

    def take(self, party: str) -> None:
        """Takes a place for a tenant, or for whoever has a credential."""
        running, own = self._running.total(), self._running[party]
        if running >= self._max_calls or own >= max(1, self._max_calls // 2):
            _refused.inc()
            raise Overloaded(
                f"{running:,} calls are being passed on to other services, {own:,} of them for "
                f"this caller, and --max-calls is {self._max_calls:,} (half of it for one caller); "
                "retry later, send fewer calls at once, or add routers",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._running[party] += 1

    def free(self, party: str) -> None:
        add_to(self._running, party, -1)


class _Connection:
    """A connection to a service, and the calls that run on it."""

    def __init__(self, address: str) -> None:
        # Retries are for whoever called: here, they would multiply.
        self._channel = ServiceChannel(address, token="", own_connection=True, retries=False)
        self.grpc_channel = self._channel.grpc_channel
        self.running = 0

    async def close(self) -> None:
        await self._channel.close()


class _Route:
    """The way to one service."""

    def __init__(
        self,
        service: ForwardedService,
        places: _Places,
        access: AccessControl,
        audit: AuditLog | None,
        idle_s: float,
    ) -> None:
        self._idle_s = idle_s
        self._name = service.service.full_name
        self._target = service.service.name.removesuffix("Service").lower()
        self._places = places
        self._access = access
        self._audit = audit
        self._option = service.option
        self._rights = METHODS.get(self._name, {})
        self.address = service.address
        self._peer = f"{service.service.name} at {self.address} ({self._option} of this router)"
        self._connections = (
            [_Connection(self.address) for _ in range(_CONNECTIONS)] if self.address else []
        )
        security = ChannelSecurity.choose("", None, os.environ)
        self._is_protected = bool(security.tls or security.insecure or is_loopback(self.address))
        self._handlers = {
            method.name: (
                self._event_stream(method.name)
                if method.server_streaming
                else self._unary(method.name)
            )
            for method in service.service.methods
            if not method.client_streaming
        }

    def handler(self, method: str) -> Handler:
        """Returns the handler of a method, which may be newer than this server."""
        # On the wire, a stream of one message is a message.
        return self._handlers.get(method) or self._stream(method)

    async def poll_health(self, set_health: SetHealth) -> None:
        """Reports the health of the service, until it is cancelled.

        Not by a stream: the service, when it stops, would wait for its end. Over a connection of
        its own: one that could not connect waits before it tries again, and calls would wait, too.
        """
        connection = _Connection(self.address)
        stub = health_pb2_grpc.HealthStub(connection.grpc_channel)
        request = health_pb2.HealthCheckRequest(service=self._name)
        try:
            while True:
                found = health_pb2.HealthCheckResponse.NOT_SERVING
                with contextlib.suppress(grpc.aio.AioRpcError):
                    found = (await stub.Check(request, timeout=_HEALTH_TIMEOUT_S)).status
                set_health(self._name, found)
                await asyncio.sleep(_HEALTH_EVERY_S)
        finally:
            await connection.close()

    async def close(self) -> None:
        for connection in self._connections:
            await connection.close()

    def _reader(self, method: str) -> RequestReader:
        return RequestReader(bytes, method, most_request_bytes(method), self._idle_s)

    def _unary(self, method: str) -> Handler:
        path, reader = f"/{self._name}/{method}", self._reader(method)

        async def forward(_: Any, context: Context) -> Any:
            async with self._call(method, context) as (channel, metadata):
                request = reader.decode(await reader.read(context))
                call = channel.unary_unary(path)(
                    request, timeout=time_left_s(context), metadata=metadata
                )
                reply = await call
                context.set_trailing_metadata(with_trace(await call.trailing_metadata()))
                return reply

        return grpc.stream_unary_rpc_method_handler(forward)

    def _event_stream(self, method: str) -> Handler:
        path, reader = f"/{self._name}/{method}", self._reader(method)

        async def forward(_: Any, context: Context) -> AsyncIterator[Any]:
            async with self._call(method, context) as (channel, metadata):
                request = reader.decode(await reader.read(context))
                # Not as a stream of one request: a refusal while one is being sent may get lost.
                call = channel.unary_stream(path)(
                    request, timeout=time_left_s(context), metadata=metadata
                )
                try:
                    while (reply := await call.read()) is not grpc.aio.EOF:
                        yield reply
                    context.set_trailing_metadata(with_trace(await call.trailing_metadata()))
                finally:
                    call.cancel()

        return grpc.stream_stream_rpc_method_handler(forward)

    def _stream(self, method: str) -> Handler:
        path = f"/{self._name}/{method}"

        async def forward(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
            async with self._call(method, context) as (channel, metadata):
                call = channel.stream_stream(path)(timeout=time_left_s(context), metadata=metadata)
                # Each side is read when the other has taken what was read before: what neither
                # takes stays with its sender.
                sending = asyncio.create_task(send_requests(call, requests))
                try:
                    while (reply := await call.read()) is not grpc.aio.EOF:
                        yield reply
                    context.set_trailing_metadata(with_trace(await call.trailing_metadata()))
                finally:
                    call.cancel()
                    sending.cancel()
                    await asyncio.gather(sending, return_exceptions=True)

        return grpc.stream_stream_rpc_method_handler(forward)

    @contextlib.asynccontextmanager
    async def _call(self, method: str, context: Context) -> AsyncIterator[tuple[Any, _Metadata]]:
        """Begins a call; yields the channel and the metadata with which to pass it on.

        Its errors end the call as the service would have ended it.
        """
        start = time.perf_counter()
        code = "CANCELLED"
        span = begin_call(f"{self._name}/{method}", context.invocation_metadata)
        received: Any = context.invocation_metadata() or ()
        connection: _Connection | None = None
        try:
            party = await self._party(method, received, context)
            self._places.take(party)
            # Once the caller has taken the replies: until then, they are kept here.
            held: Any = context
            held.add_done_callback(lambda _: self._places.free(party))
            connection = min(self._connections, key=lambda one: one.running)
            connection.running += 1
            yield connection.grpc_channel, _passed_on(received)
            code = "OK"
        except NearlineError as error:
            code = error.status
            found = REQUEST_ID_KEY, request_id_of(context)
            await abort_call(context, error, found, *trace_trailers(span))
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            await self._abort(context, error)
        finally:
            if connection is not None:
                connection.running -= 1
            _calls.labels(self._target, code).observe(time.perf_counter() - start, exemplar(span))
            if span is not None:
                end_rpc(span, f"{self._name}/{method}", code)

    async def _party(self, method: str, metadata: _Metadata, context: Context) -> str:
        """Returns whose call it is: the tenant, or, if callers are not told apart, a credential.

        Raises: Unsupported: it cannot be passed on. Unauthenticated, PermissionDenied: it may not.
        """
        if not self.address:
            raise Unsupported(
                f"this router has no address of a {self._name}: start it with {self._option} "
                "HOST:PORT, or call that service at its own address"
            )
        if _FORWARDED in metadata:
            raise Unsupported(
                f"{self._option} of a router is {self.address}, which is a router, too; give the "
                f"address of a {self._name}"
            )
        credential = next((str(value) for key, value in metadata if key == _CREDENTIAL), "")
        if credential and not self._is_protected:
            raise Unsupported(
                f"your credential would travel unencrypted from this router to {self.address}: "
                "give the router TLS files (NEARLINE_TLS_CA), or NEARLINE_INSECURE=true if a "
                "network of your own protects it"
            )
        if not self._access.required:
            return credential
        caller: Caller | None = None
        try:
            caller = await self._access.identify(metadata)
            if (row := self._rights.get(method)) is not None:
                caller.require(row.right, method)
        except (Unauthenticated, PermissionDenied) as error:
            if isinstance(error, KeyExpired):
                caller = error.caller
            self._record(caller, method, error, context)
            raise
        return caller.tenant

    def _record(
        self, caller: Caller | None, method: str, error: NearlineError, context: Context
    ) -> None:
        if self._audit is not None:
            self._audit.write(
                caller,
                method,
                collection="",
                result=error.status,
                request_id=request_id_of(context),
                peer=str(context.peer()),
            )

    async def _abort(self, context: Context, error: grpc.aio.AioRpcError) -> None:
        """Ends a call with the error of the service, or with what gRPC said in its place."""
        trailers = tuple(error.trailing_metadata() or ())
        if any(key == status.DETAILS_KEY for key, _ in trailers):
            await end_early(context, error.code(), error.details() or "", with_trace(trailers))
        typed = status.from_rpc_error(error, self._peer)
        await abort_call(context, typed, (REQUEST_ID_KEY, request_id_of(context)))


def _passed_on(metadata: Iterable[tuple[str, str | bytes]]) -> _Metadata:
    """Returns the metadata of a call as they are sent on, without those of its connection."""
    kept = [one for one in metadata if one[0] != "user-agent" and not one[0].startswith("grpc-")]
    # A traceparent is replaced where this server traces: gRPC sends the last one alone.
    return (*kept, _FORWARDED)

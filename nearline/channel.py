"""A channel to one service: deadlines, retries by service config, and typed errors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final, Self, TypeAlias, TypeVar, cast

import grpc
from google.protobuf.message import Message

from nearline import status
from nearline.access.method_guard import delegated_caller
from nearline.channel_security import ChannelSecurity
from nearline.client_throttle import ClientThrottle
from nearline.contract import Lane
from nearline.errors import InvalidRequest, NearlineError, Overloaded
from nearline.tls import TlsFiles
from nearline.tracing.client_calls import traced

# Used if the caller sets none: a call without a deadline can hang forever.
DEFAULT_TIMEOUT_S = 10.0
_Reply = TypeVar("_Reply")
_Call = TypeVar("_Call")
_MAX_MESSAGE_BYTES = 64 << 20

# Nearline's servers send UNAVAILABLE for calls that were not processed; gRPC sends CANCELLED for
# calls that a stopping server had not begun. Calls that the caller cancels are not retried. All
# attempts share the caller's deadline, and the token bucket stops retries while most calls fail. A
# server that died may have died of the call, so there is one retry, which another server gets if
# there are several.
# RESOURCE_EXHAUSTED is left to the caller, since the error says when to retry. Writes are retried
# because the client gives each an idempotency key. Streams of writes are not retried, nor are calls
# to shards: the router tries another replica.
SERVICE_CONFIG: Final = {
    "methodConfig": [
        {
            "name": [
                {"service": "nearline.v1.EmbeddingService", "method": "Embed"},
                {"service": "nearline.v1.EmbeddingService", "method": "GetInfo"},
                {"service": "nearline.v1.RetrievalService", "method": "Search"},
                {"service": "nearline.v1.RetrievalService", "method": "SearchBatch"},
                {"service": "nearline.v1.RetrievalService", "method": "GetItems"},
                {"service": "nearline.v1.RetrievalService", "method": "UpsertItems"},
                {"service": "nearline.v1.RetrievalService", "method": "DeleteItems"},
                {"service": "nearline.v1.RetrievalService", "method": "Recommend"},
                {"service": "nearline.v1.RetrievalService", "method": "RecordInteractions"},
                {"service": "nearline.v1.RetrievalService", "method": "SetUser"},
                {"service": "nearline.v1.RetrievalService", "method": "GetUser"},
                {"service": "nearline.v1.RetrievalService", "method": "DeleteUser"},
                {"service": "nearline.v1.IngestService", "method": "Submit"},
                {"service": "nearline.v1.IngestService", "method": "GetJob"},
                {"service": "nearline.v1.IngestService", "method": "ListJobs"},
                {"service": "nearline.v1.IngestService", "method": "CancelJob"},
                {"service": "nearline.v1.IngestService", "method": "ListResults"},
                {"service": "nearline.v1.IngestService", "method": "ListDeadLetters"},
                {"service": "nearline.v1.IngestService", "method": "RequeueDeadLetters"},
                {"service": "nearline.v1.IngestService", "method": "DeleteDeadLetters"},
                {"service": "nearline.v1.IngestService", "method": "GetQueue"},
            ],
            "retryPolicy": {
                "maxAttempts": 2,
                "initialBackoff": "0.02s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.1},
    "loadBalancingConfig": [{"round_robin": {}}],
}

_RETRIES = ("grpc.service_config", json.dumps(SERVICE_CONFIG))
_NO_RETRIES = ("grpc.service_config", json.dumps(SERVICE_CONFIG | {"methodConfig": []}))
_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # How long an attempt to connect may take, on a busy machine TLS included.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # A restarting service returns within seconds: gRPC's default is two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # It may return at another address: resolve again before gRPC's 30 s.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
)
# Channels with equal options share their connections with all others of the process.
_OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)


# Called with the class of the request, the status and the seconds of each call.
CallObserver: TypeAlias = Callable[[type[Message], str, float], None]
_observers: list[CallObserver] = []


def observe_calls(observer: CallObserver) -> None:
    """Registers an observer of the calls that this process makes; servers count them."""
    if observer not in _observers:
        _observers.append(observer)


@contextlib.contextmanager
def observed_call(request: type[Message] | None) -> Iterator[None]:
    """Reports the call in the block to the observers; None reports nothing."""
    if request is None or not _observers:
        yield
        return
    start, code = time.perf_counter(), "OK"
    try:
        yield
    except NearlineError as error:
        code = error.status
        raise
    except BaseException:
        code = "CANCELLED"
        raise
    finally:
        seconds = time.perf_counter() - start
        for observer in _observers:
            observer(request, code, seconds)


class _SplitChannel:
    """A channel whose streams have connections of their own, and whose calls are traced.

    A server runs some calls of a connection at once (`max_streams`), and the others wait unseen:
    streams, which may last for hours, would keep every other call of the process waiting.
    """

    def __init__(self, calls: grpc.aio.Channel, streams: grpc.aio.Channel, address: str) -> None:
        self.unary_unary = traced(calls.unary_unary, address)
        self.unary_stream = traced(streams.unary_stream, address)
        self.stream_unary = traced(streams.stream_unary, address)
        self.stream_stream = traced(streams.stream_stream, address)


class ServiceChannel:
    """An async gRPC channel to one address; close it, or use it as an async context manager.

    Calls share the connections of the process to that address; streams have some of their own.

    Args:
        address: "host:port", or any target that gRPC resolves, for example "dns:///name:port".
        token: API key or JSON Web Token; empty sends none. Optional; None takes NEARLINE_TOKEN.
        tls: Certificates. Optional; None takes NEARLINE_TLS_CA, NEARLINE_TLS_CERT and
            NEARLINE_TLS_KEY, and connects without TLS if they are not set.
        lane: With bulk, a crowded service answers interactive calls first.
        own_connection: Whether calls share their connection with no other channel of the process.
        retries: Whether calls that the service did not process are repeated.
    Raises: InvalidRequest: the token has characters that a header cannot carry.
        SettingsError: a file cannot be read, or the token would travel unencrypted to another
            machine.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        tls: TlsFiles | None = None,
        lane: Lane = Lane.INTERACTIVE,
        own_connection: bool = False,
        retries: bool = True,
    ) -> None:
        self.address = address
        # By the type of the request, one for each method: what is refused of one says nothing of
        # another, such as the one that ends the overload.
        self._throttles: dict[type, ClientThrottle] = {}
        security = ChannelSecurity.choose(token, tls, os.environ)
        options = (*_OPTIONS, _RETRIES if retries else _NO_RETRIES)
        own = (*options, _OWN_CONNECTION)
        self._channel = security.open_channel(address, own if own_connection else options, lane)
        self._streams = security.open_channel(address, own, lane)

    @property
    def grpc_channel(self) -> grpc.aio.Channel:
        """The gRPC channel, for stubs."""
        return cast(grpc.aio.Channel, _SplitChannel(self._channel, self._streams, self.address))

    async def call(
        self, make: Callable[[], Awaitable[_Reply]], request: Message | None = None
    ) -> _Reply:
        """Awaits one call and raises the server's error as its Nearline class.

        Args:
            make: Begins the call.
            request: What it sends, for `observe_calls`. Optional; None leaves the call out.
        Raises: Any class of `nearline.errors`.
        """
        with observed_call(None if request is None else type(request)):
            try:
                return await self.begin(make)
            except grpc.aio.AioRpcError as error:
                raise status.from_rpc_error(error, self.address) from error

    def begin(self, make: Callable[[], _Call]) -> _Call:
        """Begins a call, such as a stream. Raises: InvalidRequest: the client is closed."""
        try:
            return make()
        except grpc.aio.UsageError as error:
            raise InvalidRequest(
                f"the client of {self.address} is closed; make another one, or close it later"
            ) from error

    async def send(
        self,
        method: Callable[..., Awaitable[_Reply]],
        request: Any,
        timeout_s: float | None = None,
        *,
        default_s: float = DEFAULT_TIMEOUT_S,
    ) -> _Reply:
        """Sends one request by a method of a stub, and returns the reply; see `call`.

        While the service refuses most calls of a method, only some of them are sent.

        timeout_s: Time limit in seconds. Optional; None selects `default_s`.
        """
        limit_s = default_s if timeout_s is None else timeout_s
        # A service that calls for others does not refuse one for what was refused to another.
        throttle = self._throttle_of(type(request)) if delegated_caller() is None else None
        if throttle is not None:
            throttle.begin()
        refused = False
        try:
            return await self.call(lambda: method(request, timeout=limit_s), request)
        except Overloaded as error:
            # Not one of its subclasses, which are about something else.
            refused = type(error) is Overloaded
            raise
        finally:
            if throttle is not None:
                throttle.end(refused=refused)

    def _throttle_of(self, request: type) -> ClientThrottle:
        throttle = self._throttles.get(request)
        if throttle is None:
            method = request.__name__.removesuffix("Request")
            throttle = self._throttles[request] = ClientThrottle(self.address, method)
        return throttle

    async def close(self) -> None:
        """Closes the channel; calls in flight are cancelled."""
        await self._channel.close()
        await self._streams.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()


async def send_requests(
    call: Any, requests: AsyncIterator[Any], room: asyncio.Semaphore | None = None
) -> None:
    """Sends the requests of a stream; if they cannot be read, cancels the call and raises.

    If the iterator were passed to gRPC, gRPC would turn its errors into a cancellation. An error of
    the service is raised where its reply is read.

    Args:
        call: A call of a method that takes a stream.
        requests: The requests.
        room: Acquired before each request. Optional; None sends without waiting.
    """
    try:
        async for request in requests:
            if room is not None:
                await room.acquire()
            await call.write(request)
        await call.done_writing()
    except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
        # The service has ended the call; its own error, read with the reply, says more.
        pass
    except BaseException:
        call.cancel()
        raise

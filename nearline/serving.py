"""The life cycle of a gRPC server process: bind, load, serve, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast

import grpc
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from prometheus_client import Gauge, make_wsgi_app, start_http_server

from nearline.access.access_control import AccessControl
from nearline.access.api_keys import KeyFile
from nearline.access.audit_log import AuditLog
from nearline.access.caller_file import CallerFile
from nearline.access.limits import LimitFile
from nearline.access.rate_limiter import RateLimiter
from nearline.allocator import return_large_blocks
from nearline.calls.guard import CallGuard, Context as Context, time_left_s as time_left_s
from nearline.calls.health_servicer import HEALTH_SERVICE, HealthServicer
from nearline.channel import observe_calls
from nearline.client_metrics import observe_call
from nearline.errors import NearlineError, SettingsError
from nearline.forwarder import ForwardedService, Forwarder
from nearline.loop_watchdog import LoopWatchdog
from nearline.settings import ListenerSettings, ServerSettings
from nearline.telemetry import configure_logging
from nearline.tls import TlsFiles, certificate_expiry, is_loopback, server_credentials
from nearline.tracing.spans import traced_calls

LIFELINE_VARIABLE = "NEARLINE_LIFELINE_FD"
# For connections to close once their calls have ended.
_CLOSE_S = 0.5
# Each has a thread. When there is no room, a new connection takes the place of the oldest one.
_METRICS_CONNECTIONS, _METRICS_TIMEOUT_S = 64, 10.0
# What a reply with metrics depends on.
_WISH = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "HTTP_ACCEPT", "HTTP_ACCEPT_ENCODING")
_NEVER = (1 << 31) - 1  # gRPC's value for no limit.
_WsgiApp: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], list[bytes]]
_log = logging.getLogger(__name__)
_certificate_expiry = Gauge(
    "nearline_server_certificate_expiry_timestamp_seconds",
    "Time at which the certificate of this server expires, in seconds since 1970; 0 without TLS.",
)


@dataclass(frozen=True, slots=True)
class Registration:
    """A service to host: its full proto name, and the function that adds its servicer."""

    name: str
    add: Callable[[grpc.aio.Server], None]


async def serve(
    settings: ServerSettings,
    registrations: Sequence[Registration],
    *,
    ready: Callable[[], Awaitable[None]],
    stopping: Callable[[], None] | None = None,
    close: Callable[[], Awaitable[None]] | None = None,
    callers: CallerFile | None = None,
    forwarded: Sequence[ForwardedService] = (),
) -> None:
    """Serves until SIGTERM, SIGINT, or the death of the supervisor that holds the lifeline pipe.

    The port is bound first, with health NOT_SERVING. `ready` then loads and warms up, and health
    becomes SERVING. To stop, the server calls `stopping`, reports NOT_SERVING, waits `drain_s` for
    load balancers to notice and `grace_s` for calls in flight, then calls `close`, and sends the
    last spans to the collector.

    Args:
        callers: Callers in addition to those of `settings.keys` and of tokens. Optional.
        forwarded: Services whose calls are passed on to them, also while this one loads.
    Raises: SettingsError: a port is taken. Any error of `ready`, once the server has stopped.
    """
    stop = stop_event()
    async with contextlib.AsyncExitStack() as ends:
        traces = traced_calls(settings.trace_endpoint, settings.trace_sample, settings.section)
        await ends.enter_async_context(traces)
        host = await _Host.start(settings, registrations, callers, forwarded)
        if close is not None:
            ends.push_async_callback(close)
        ends.push_async_callback(host.stop, settings.grace_s)
        if await _finish_or_stop(ready(), stop):
            # Loaded objects live as long as the process; spare the collector from walking them.
            gc.collect()
            gc.freeze()
            host.set_serving()
            _log.info("serving", extra={"address": host.address})
            async with LoopWatchdog():
                await stop.wait()
            if stopping is not None:
                stopping()
            _log.info("draining", extra={"address": host.address})
            await host.drain(settings.drain_s)
    _log.info("stopped", extra={"address": host.address})


@contextlib.asynccontextmanager
async def running(
    registrations: Sequence[Registration],
    *,
    ready: Callable[[], Awaitable[None]] | None = None,
    settings: ServerSettings | None = None,
    callers: CallerFile | None = None,
    forwarded: Sequence[ForwardedService] = (),
) -> AsyncIterator[str]:
    """Runs the server of `serve` in this process on a free loopback port; yields its address."""
    chosen = settings or ServerSettings.load()
    host = await _Host.start(chosen, registrations, callers, forwarded)
    try:
        if ready is not None:
            await ready()
        host.set_serving()
        yield host.address
    finally:
        await host.stop(0.1)


def run(main: Coroutine[None, None, None], service: str) -> None:
    """Runs the main coroutine of a service; a Nearline error ends the process with one log line.

    Args:
        main: The coroutine; it sets the log level once it has read the settings.
        service: Name in log lines until the settings are read, so that their errors are logged,
            too.
    """
    configure_logging("info", service)
    return_large_blocks()
    observe_calls(observe_call)
    try:
        # grpc.aio passes every network event to the loop; uvloop takes a fifth less time.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)
    except NearlineError as error:
        _log.critical("failed", extra={"error": type(error).__name__, "reason": error.message})
        sys.exit(2 if isinstance(error, SettingsError) else 1)


def _is_no_lost_reply(record: logging.LogRecord) -> bool:
    """Leaves out of a log that the peer of a call has gone before it took the reply."""
    return not record.getMessage().startswith("ExecuteBatchError")


class _Host:
    """A started server with health, reflection and the call guard."""

    def __init__(
        self,
        server: grpc.aio.Server,
        guard: CallGuard,
        forwarder: Forwarder,
        names: Sequence[str],
        address: str,
    ) -> None:
        self._server = server
        self._forwarder = forwarder
        self._guard = guard
        self._names = ("", *names)
        self._health = HealthServicer()
        self.address = address

    @classmethod
    async def start(
        cls,
        settings: ServerSettings,
        registrations: Sequence[Registration],
        callers: CallerFile | None,
        forwarded: Sequence[ForwardedService],
    ) -> _Host:
        # Strangers lose replies at will, and a traceback costs more than the call.
        logging.getLogger("grpc._cython.cygrpc").addFilter(_is_no_lost_reply)
        server = grpc.aio.server(
            options=(
                ("grpc.so_reuseport", int(settings.reuse_port)),
                ("grpc.max_concurrent_streams", settings.max_streams),
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", settings.max_message_bytes),
                # Else it would take megabytes of requests that are not read yet.
                ("grpc.http2.bdp_probe", 0),
                # Clients ping idle channels to keep them alive; accept a ping every 10 s.
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
                # Ends connections, and their unread replies, of machines and processes that are
                # gone or stopped.
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.keepalive_timeout_ms", 20_000),
                # A compressed message would be unpacked before its size is known: 1 is none alone.
                ("grpc.compression_enabled_algorithms_bitset", 1),
                # Otherwise clients resolve a name again only when a connection breaks.
                ("grpc.max_connection_age_ms", round(settings.connection_age_s * 1_000) or _NEVER),
            ),
        )
        access = _open_access(settings, callers)
        tls = TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
        _check_exposure(settings, access, tls)
        _check_promises(settings)
        audit = AuditLog(Path(settings.audit_log)) if settings.audit_log else None
        limiter = RateLimiter(LimitFile(settings.limits)) if settings.limits else None
        guard = CallGuard(
            server,
            settings.max_calls,
            access,
            audit,
            limiter,
            settings.stream_idle_s,
            settings.slow_request_ms,
        )
        address = f"{settings.host}:{settings.port}"
        try:
            if tls:
                port = server.add_secure_port(address, server_credentials(tls))
            else:
                port = server.add_insecure_port(address)
        except RuntimeError as error:
            raise SettingsError(
                f"cannot listen on {address}: the port is in use, or the address does not "
                "belong to this machine; stop the other process or choose another --port"
            ) from error
        names = [registration.name for registration in registrations]
        forwarder = Forwarder(forwarded, settings.max_calls, access, audit, settings.stream_idle_s)
        host = cls(server, guard, forwarder, names, f"{settings.host}:{port}")
        guarded = cast(grpc.aio.Server, guard)
        for registration in registrations:
            registration.add(guarded)
        health_pb2_grpc.add_HealthServicer_to_server(host._health, guarded)
        names += forwarder.names
        reflected = (*names, HEALTH_SERVICE, reflection.SERVICE_NAME)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
            reflection.aio.ReflectionServicer(reflected), guarded
        )
        server.add_generic_rpc_handlers((forwarder,))
        guard.refuse_other_methods(names)
        host._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        forwarder.start(host._health.set)
        start_metrics(settings)
        await server.start()
        return host

    def set_serving(self) -> None:
        self._guard.open = True
        self._set_health(health_pb2.HealthCheckResponse.SERVING)

    async def drain(self, drain_s: float) -> None:
        self._health.drain()
        await asyncio.sleep(drain_s)

    async def stop(self, grace_s: float) -> None:
        # gRPC waits 20 s more for a peer that neither reads nor answers.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s + _CLOSE_S):
                await self._server.stop(grace_s)
        await self._forwarder.close()

    def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in self._names:
            self._health.set(name, status)


def check_security(settings: ServerSettings) -> None:
    """Raises SettingsError if keys, tokens, limits, certificates or readers cannot be used."""
    _check_promises(settings)
    _open_access(settings, None)
    if settings.limits:
        LimitFile(settings.limits)
    tls = TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    if tls:
        server_credentials(tls)


def _open_access(settings: ServerSettings, callers: CallerFile | None) -> AccessControl:
    """Returns what identifies the callers of a server.

    Raises: SettingsError: the keys cannot be read, or the settings of tokens are incomplete.
    """
    keys = KeyFile(Path(settings.keys)) if settings.keys else None
    tokens = None
    if settings.token_issuer or settings.token_audience or settings.token_keys:
        # Imported late: it needs a library that a service without tokens does not.
        from nearline.access.web_tokens import TokenClaims, TokenVerifier

        tokens = TokenVerifier(
            settings.token_issuer,
            settings.token_audience,
            settings.token_keys,
            TokenClaims(*settings.token_claims.split(",")),
        )
    return AccessControl(keys, tokens, callers)


def _check_exposure(settings: ServerSettings, access: AccessControl, tls: TlsFiles) -> None:
    """Checks that an address that others can reach has TLS and credentials.

    Raises: SettingsError: TLS or credentials are missing, and `insecure` is not set.
    """
    if settings.insecure or is_loopback(settings.host):
        return
    missing = []
    if not tls:
        missing.append("TLS (--tls-cert and --tls-key; `nearline certs` makes them for tests)")
    if not access.required:
        missing.append("credentials (--keys, made by `nearline keys create`, or --token-issuer)")
    if missing:
        raise SettingsError(
            f"{settings.host} is not a loopback address, and the service has no "
            f"{' and no '.join(missing)}; give them, or --insecure (NEARLINE_INSECURE=true) if a "
            "network of your own protects it"
        )


def _check_promises(settings: ServerSettings) -> None:
    """Raises SettingsError if settings promise a protection that others leave open."""
    warning = settings.security_warning()
    if not warning:
        return
    if not settings.insecure:
        raise SettingsError(
            f"{warning}; give --keys (made by `nearline keys create`) or --token-issuer, or "
            "--insecure (NEARLINE_INSECURE=true) if that is what you want"
        )
    _log.warning("not protected", extra={"reason": warning})


def start_metrics(settings: ListenerSettings) -> None:
    """Serves the metrics of this process, if the settings name a port for them.

    Raises: SettingsError: the port is taken.
    """
    host, port = settings.metrics_host or settings.host, settings.metrics_port
    if not port:
        return
    if settings.tls_cert:
        _certificate_expiry.set_function(partial(_read_expiry, settings.tls_cert))
    try:
        server, _ = start_http_server(port, addr=host)
    except OSError as error:
        raise SettingsError(
            f"cannot serve metrics on {host}:{port}: {error.strerror}; "
            "choose another --metrics-port"
        ) from error
    server.set_app(_shared(make_wsgi_app()))
    # Instead of the library's 5: a connection that finds no room is tried again after a second.
    server.socket.listen(1_024)
    open_ones: dict[socket.socket, None] = {}  # Oldest first.
    close = server.shutdown_request

    def begin(connection: Any, _: object) -> bool:
        # Reading would not show it: what had arrived before can still be read.
        if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return False  # It was reset, and needs no thread.
        if len(open_ones) >= _METRICS_CONNECTIONS:
            oldest = list(open_ones)[0]  # noqa: RUF015 - in one step: other threads change it.
            open_ones.pop(oldest, None)
            with contextlib.suppress(OSError):  # It is closed already.
                oldest.shutdown(socket.SHUT_RDWR)
        open_ones[connection] = None
        connection.settimeout(_METRICS_TIMEOUT_S)
        return True

    def end(connection: Any) -> None:
        open_ones.pop(connection, None)
        close(connection)

    changed = {"verify_request": begin, "shutdown_request": end, "handle_error": lambda *_: None}
    vars(server).update(changed)


def _shared(app: _WsgiApp) -> _WsgiApp:
    """Returns an application whose reply is made once for all who wait for the same one."""
    lock = threading.Lock()
    newest: tuple[tuple[Any, ...], float, Any, list[bytes]] = (), 0.0, ("", []), []

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        nonlocal newest
        wish = tuple(environ.get(name) for name in _WISH)
        arrived = time.monotonic()
        with lock:
            if newest[0] != wish or newest[1] <= arrived:
                begun, heads = time.monotonic(), list[Any]()
                parts = app(environ, lambda *head: heads.append(head))
                newest = wish, begun, heads[0], parts
            _, _, (status, headers), parts = newest
        start_response(status, headers.copy())  # The server adds its own to the list.
        return parts

    return answer


def _read_expiry(file: str) -> float:
    try:
        return certificate_expiry(file)
    except (OSError, ValueError):
        return 0.0  # It is being replaced.


def stop_event() -> asyncio.Event:
    """Returns an event that SIGTERM, SIGINT, or the death of the supervisor sets."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    watch_lifeline(os.environ.get(LIFELINE_VARIABLE), stop.set)
    return stop


def watch_lifeline(lifeline: str | None, died: Callable[[], object]) -> None:
    """Calls a function once the process that started this one has died.

    Args:
        lifeline: Descriptor of the pipe whose other end that process holds; None for no pipe.
        died: The function.
    """
    if lifeline is None:
        return
    loop = asyncio.get_running_loop()
    # The other end is never written to: a readable pipe means that its process died.
    descriptor = int(lifeline)

    def closed() -> None:
        loop.remove_reader(descriptor)
        died()

    loop.add_reader(descriptor, closed)


async def _finish_or_stop(work: Awaitable[None], stop: asyncio.Event) -> bool:
    """Waits for the work or the stop event; returns whether the work finished first."""
    task = asyncio.ensure_future(work)
    waiter = asyncio.ensure_future(stop.wait())
    await asyncio.wait((task, waiter), return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    if not task.done():
        task.cancel()
        await asyncio.wait((task,))
        return False
    task.result()
    return True

"""The HTTP server of the gateway: listens, serves, and ends without dropping a request."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.body import transfer_s
from gateway.settings import GatewaySettings
from nearline.errors import SettingsError
from nearline.tls import TlsFiles, check_files, is_loopback, watch_files

# Of the line of the request and its headers. Source: the defaults of nginx and Apache are 32 KiB
# and 8 KiB a line; tokens of identity providers take a few KiB.
MAX_HEADER_BYTES: Final = 64 << 10
# For them to arrive, from the first byte or the beginning of the connection.
HEADER_S: Final = 10.0
# Requests of a connection that wait for an earlier one; browsers send none.
_MAX_WAITING: Final = 64
KEEP_ALIVE_S: Final = 75
_GRACE_S: Final = 10
_LOOK_EVERY_S: Final = 1.0
# Answered whatever else runs: without an answer, Kubernetes restarts the gateway.
_PROBE: Final = b"/healthz"


class BoundedProtocol(HttpToolsProtocol):
    """A connection that is closed when its peer sends too slowly or too much, or does not read.

    uvicorn bounds only pauses between requests: a client could hold a connection for ever, or fill
    the memory. A request has its place until its reply has been read.
    """

    _overhead_bytes = 0
    _in_headers = True
    _sending: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Whatever the peer has not taken counts. TLS never resumes with a limit of 0.
        transport.set_write_buffer_limits(high=1)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_within(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._overhead_bytes += len(data)
        super().data_received(data)
        if self._overhead_bytes > MAX_HEADER_BYTES:
            self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_headers()

    def on_headers_complete(self) -> None:
        if len(self.pipeline) == _MAX_WAITING:
            raise ValueError("too many requests before the reply to the first")
        self._in_headers = False
        self._overhead_bytes = 0
        self._expect_within(None)
        # uvicorn would count connections, idle ones too.
        is_probe = self.url.partition(b"?")[0] == _PROBE
        self.limit_concurrency = None if is_probe or self._has_place() else 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._overhead_bytes = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and not self._in_headers:
            # For the next request; neither blank lines nor the rest of a body prolong it.
            self._expect_within(KEEP_ALIVE_S)

    def pause_writing(self) -> None:
        super().pause_writing()
        limit_s = transfer_s(self.transport.get_write_buffer_size())
        self._reading = self.loop.call_later(limit_s, self.transport.abort)

    def resume_writing(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        super().resume_writing()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        async def answer_and_deliver(*request: Any) -> None:
            await app(*request)
            await self.flow.drain()

        super()._start_asgi_task(cycle, answer_and_deliver)

    def _has_place(self) -> bool:
        """Returns whether a request may run: a client address has half of the places at most."""
        most, running = self.config.limit_concurrency or 0, len(self.tasks)
        if running < (half := (most + 1) // 2):
            return True
        client: Any = self.client
        others: Any = self.connections
        own = sum(
            one.flow.write_paused or (one.cycle is not None and not one.cycle.response_complete)
            for one in others
            if one.client[0] == client[0]
        )
        return running < most and own < half

    def _await_headers(self) -> None:
        self._in_headers = True
        self._expect_within(HEADER_S)

    def _expect_within(self, limit_s: float | None) -> None:
        """Closes the connection after some seconds, unless called again; None waits for nothing."""
        if self._sending is not None:
            self._sending.cancel()
        self._sending = (
            None if limit_s is None else self.loop.call_later(limit_s, self.transport.abort)
        )


class _Server(uvicorn.Server):
    """A server that leaves signals to its process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serving(application: Starlette, settings: GatewaySettings) -> AsyncIterator[str]:
    """Serves an application for the length of the block; yields its address, host:port.

    Requests in flight at the end of the block have ten seconds to finish.

    Raises: SettingsError: the address or the certificate cannot be used, or others reach it and
        nothing protects it.
    """
    tls = TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    if not (settings.insecure or tls or is_loopback(settings.host)):
        raise SettingsError(
            f"{settings.host} is not a loopback address, and the gateway has no TLS: give "
            "--tls-cert and --tls-key, or --insecure if a proxy of your own encrypts"
        )
    if tls:
        check_files(tls)
        if not tls.certificate:
            raise SettingsError(
                "TLS needs a certificate and its key: give --tls-cert and --tls-key"
            )
    listening = _listen(settings)
    config = uvicorn.Config(
        application,
        loop="none",
        http=BoundedProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        limit_concurrency=settings.max_requests,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
        ssl_certfile=settings.tls_cert or None,
        ssl_keyfile=settings.tls_key or None,
        ssl_ca_certs=settings.tls_client_ca or None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if settings.tls_client_ca else ssl.CERT_NONE,
    )
    config.load()
    server = _Server(config)
    tasks = [asyncio.create_task(server.serve([listening]))]
    if isinstance(config.ssl, ssl.SSLContext):
        tasks.append(asyncio.create_task(_renew(config.ssl, tls)))
    try:
        while not server.started and not tasks[0].done():
            await asyncio.sleep(0.005)
        host, port = listening.getsockname()[:2]
        yield f"{host}:{port}"
    finally:
        server.should_exit = True
        await asyncio.wait(tasks[:1])
        for task in tasks[1:]:
            task.cancel()
        listening.close()


def _listen(settings: GatewaySettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # With the protocol named, asyncio sends small replies at once (TCP_NODELAY).
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        listening.listen(1_024)
    except OSError as error:
        listening.close()
        raise SettingsError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; stop the other "
            "process or choose another --port"
        ) from error
    listening.setblocking(False)
    return listening


async def _renew(context: ssl.SSLContext, tls: TlsFiles) -> None:
    """Shows new connections the newest certificate."""
    watched = watch_files(tls)
    contents = watched.contents
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        if (found := watched.current()) != contents:
            contents = found
            # Of a certificate whose key is yet to come, nothing is loaded.
            with contextlib.suppress(ssl.SSLError, OSError):
                context.load_cert_chain(tls.certificate, tls.key)

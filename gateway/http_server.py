"""The HTTP server of the gateway: listens, serves, and ends without dropping a request."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Final

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.settings import GatewaySettings
from nearline.errors import SettingsError
from nearline.tls import TlsFiles, check_files, is_loopback, watch_files

# Of the line of the request and its headers. Source: the defaults of nginx and Apache are 32 KiB
# and 8 KiB a line; tokens of identity providers take a few KiB.
MAX_HEADER_BYTES: Final = 64 << 10
# For them to arrive, from the first byte or the beginning of the connection.
HEADER_S: Final = 10.0


class BoundedProtocol(HttpToolsProtocol):
    """A connection that is closed if the headers of a request are too large, or do not come.

    uvicorn bounds neither: a client could hold a connection for ever, or fill the memory.
    """

    _header_bytes = 0
    _in_headers = True
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._in_headers and self._header_bytes > MAX_HEADER_BYTES:
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_headers()

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._header_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    def _await_headers(self) -> None:
        self._in_headers = True
        self._stop_timer()
        self._timer = self.loop.call_later(HEADER_S, self._close_late)

    def _close_late(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_KEEP_ALIVE_S: Final = 75
_GRACE_S: Final = 10
_LOOK_EVERY_S: Final = 1.0


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
    tls = TlsFiles(settings.tls_cert, settings.tls_key)
    if not (settings.insecure or tls or is_loopback(settings.host)):
        raise SettingsError(
            f"{settings.host} is not a loopback address, and the gateway has no TLS: give "
            "--tls-cert and --tls-key, or --insecure if a proxy of your own encrypts"
        )
    if tls:
        check_files(tls)
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
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
        ssl_certfile=settings.tls_cert or None,
        ssl_keyfile=settings.tls_key or None,
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

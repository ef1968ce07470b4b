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

from gateway.http_protocol import BoundedProtocol
from gateway.settings import GatewaySettings
from nearline.errors import SettingsError
from nearline.tls import TlsFiles, check_files, is_loopback, watch_files

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

"""Small TCP servers of tests, which leave no open connection behind."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeAlias

Handler: TypeAlias = Callable[
    [asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]
]
# Turns of the event loop in which an accepted connection becomes one with a handler.
_TURNS = 10


@contextlib.asynccontextmanager
async def loopback_server(handle: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Runs a server on a free port, which it gives; ends with all its connections.

    Handlers that still run at the end are cancelled; an error of one is raised.
    """
    tasks: list[asyncio.Task[None]] = []
    writers: list[asyncio.StreamWriter] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        tasks.append(asyncio.ensure_future(handle(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*map(_close, writers))
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome


async def _close(writer: asyncio.StreamWriter) -> None:
    # A handler that was cancelled before it began has closed nothing.
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()

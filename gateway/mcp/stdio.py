"""MCP over the standard input and output of this process."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from typing import Final, Self, cast

import anyio
from mcp.server.stdio import stdio_server

from gateway.mcp.http_endpoint import MAX_MESSAGE_BYTES
from gateway.mcp.tool_server import make_tool_server
from gateway.upstream import CallContext, Upstream
from nearline.errors import InvalidRequest

_BLOCK: Final = 64 << 10


async def serve_stdio(
    upstream: Upstream, token: str, timeout_s: float, collection: str = ""
) -> None:
    """Serves until the input ends. Output is the protocol alone; all else goes to stderr.

    Args:
        upstream: The services.
        token: Credential of every call; empty for none.
        timeout_s: Seconds that a tool may take.
        collection: Used by tools that are called without one; empty for that of the services.
    Raises: InvalidRequest: a message is too long.
    """
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    context = CallContext(metadata, timeout_s)
    server = make_tool_server(upstream, lambda request: context, collection)
    lines = await _InputLines.open()
    # The SDK reads a file in a thread, which Ctrl-C could not end.
    given = None if lines is None else cast("anyio.AsyncFile[str]", lines)
    async with stdio_server(stdin=given) as (reader, writer):
        await server.run(reader, writer, server.create_initialization_options())
    if lines is not None and lines.error is not None:
        raise lines.error


class _InputLines:
    """Lines of the standard input, each of bounded length; one that is longer is the last.

    error: What ended them; None for the end of the input.
    """

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.error: InvalidRequest | None = None
        self._reader = reader

    @classmethod
    async def open(cls) -> Self | None:
        """Returns them; None for a file or /dev/null, which are read without waiting."""
        mode = os.fstat(sys.stdin.fileno()).st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or sys.stdin.isatty()):
            return None
        reader = asyncio.StreamReader(limit=MAX_MESSAGE_BYTES)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        return cls(reader)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        try:
            line = await self._reader.readline()
        except ValueError:
            self.error = InvalidRequest(
                f"a message has more than {MAX_MESSAGE_BYTES:,} bytes; send less at once"
            )
            raise StopAsyncIteration from None
        if not line:
            raise StopAsyncIteration
        return line.decode("utf-8", "replace")

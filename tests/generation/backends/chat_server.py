"""A scripted server of chat completions on loopback, controlled byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from tests.loopback_server import loopback_server


class Exchange:
    """One request, and the connection of its reply.

    connection: Number of the connection, 0 for the first. headers: With lower-case names. asked:
    The body of the request.
    """

    def __init__(
        self,
        connection: int,
        headers: dict[str, str],
        asked: dict[str, Any],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.connection = connection
        self.headers = headers
        self.asked = asked
        self._reader = reader
        self._writer = writer

    async def send(self, raw: bytes) -> None:
        """Sends bytes unchanged."""
        self._writer.write(raw)
        await self._writer.drain()

    async def begin(self) -> None:
        """Sends the head of a stream."""
        await self.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )

    async def event(self, data: object) -> None:
        """Sends an event: text as it is, anything else as JSON."""
        text = data if isinstance(data, str) else json.dumps(data)
        raw = f"data: {text}\n\n".encode()
        await self.send(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")

    async def end(self) -> None:
        """Ends the stream regularly."""
        await self.send(b"0\r\n\r\n")

    def cut(self) -> None:
        """Resets the connection."""
        self._writer.transport.abort()

    async def gone(self) -> None:
        """Waits until the client has closed the connection."""
        with contextlib.suppress(ConnectionError):
            assert await self._reader.read(1) == b""


Reply: TypeAlias = Callable[[Exchange], Awaitable[None]]


def text(content: str) -> dict[str, object]:
    """Returns a chunk with a text."""
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": None}]}


def finish(reason: str) -> dict[str, object]:
    """Returns the chunk with the finish reason."""
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}


def streams(*events: object, done: bool = True) -> Reply:
    """Returns a reply of events; strings are texts, other values are sent as JSON.

    Args:
        events: The events, in order.
        done: Whether "[DONE]" follows.
    """

    async def reply(exchange: Exchange) -> None:
        await exchange.begin()
        for event in events:
            await exchange.event(text(event) if isinstance(event, str) else event)
        if done:
            await exchange.event("[DONE]")
        await exchange.end()

    return reply


def refuses(status: int, error: object, *headers: str) -> Reply:
    """Returns a reply with an error status."""
    body = json.dumps({"error": error}).encode()
    head = (
        "\r\n".join((f"HTTP/1.1 {status} No", "content-type: application/json", *headers))
        + f"\r\ncontent-length: {len(body)}\r\n\r\n"
    )

    async def reply(exchange: Exchange) -> None:
        await exchange.send(head.encode() + body)

    return reply


class Server:
    """The running server; plays one reply per request, and repeats the last one.

    url: URL of the API. exchanges: The requests. connections: Number of connections.
    """

    def __init__(self, replies: Sequence[Reply]) -> None:
        self.exchanges: list[Exchange] = []
        self.connections = 0
        self.url = ""
        self._replies = replies
        self._asked = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def asked(self) -> None:
        """Waits for a request."""
        await self._asked.wait()

    async def done(self) -> None:
        """Waits until every connection has ended."""
        await asyncio.gather(*self._tasks)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves a connection."""
        number = self.connections
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode().split("\r\n")[1:-2]
                headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
                exchange = Exchange(number, headers, json.loads(body), reader, writer)
                reply = self._replies[min(len(self.exchanges), len(self._replies) - 1)]
                self.exchanges.append(exchange)
                self._asked.set()
                await reply(exchange)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # The client has disconnected.
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def serving(*replies: Reply) -> AsyncIterator[Server]:
    """Runs a server on a free port."""
    server = Server(replies)
    async with loopback_server(server.serve) as port:
        server.url = f"http://127.0.0.1:{port}/v1"
        yield server

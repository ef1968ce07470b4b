"""Clients that do not read, drip or flood: their connections end, and others are served."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from gateway import body, health, http_server
from nearline_cli.local.processes import free_port, service_process
from tests.gateway.gateways import gateway

pytestmark = [pytest.mark.service]
DOCUMENT = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
PROBE = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
CHUNKS = b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
POST = b"POST /v1/collections/shop/search HTTP/1.1\r\nhost: localhost\r\n"
STREAM = b"PUT /v1/collections/shop/items/stream HTTP/1.1\r\nhost: localhost\r\n"
# What a client sends first, and then again and again.
CLIENTS = {
    "reads nothing": (DOCUMENT * 60, b"\r\n"),
    "reads nothing of the last reply": (
        DOCUMENT * 59 + DOCUMENT[:-2] + b"connection: close\r\n\r\n",
        b"\r\n",
    ),
    "drips a body": (
        POST + b"content-type: application/json\r\ncontent-length: 999999\r\n\r\n",
        b" ",
    ),
    "drips a body in chunks": (POST + CHUNKS, b"1\r\n \r\n"),
    "drips a line": (STREAM + CHUNKS, b"1\r\n \r\n"),
    "drips a body that was refused": (
        b"POST /nowhere HTTP/1.1\r\ncontent-length: 999999\r\n\r\n",
        b" ",
    ),
    "sends blank lines between requests": (PROBE, b"\r\n"),
    "sends headers after a body": (POST + CHUNKS + b"0\r\n", b"x: xxxxxxxxxx\r\n" * 1_000),
    "sends a huge header after a body": (POST + CHUNKS + b"0\r\nx: ", b"x" * 10_000),
    "sends requests and reads no reply": (PROBE * 1_000, PROBE),
}


@pytest.fixture(name="quick")
def give_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "HEADER_S", 0.3)
    monkeypatch.setattr(http_server, "KEEP_ALIVE_S", 0.3)
    monkeypatch.setattr(body, "PATIENCE_S", 0.3)


def _connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
    client.bind((source, 0))
    client.connect(("127.0.0.1", port))
    client.setblocking(False)
    return client


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", CLIENTS)
async def test_the_connection_of_a_client_that_takes_its_time_is_closed(name: str) -> None:
    first, more = CLIENTS[name]
    loop = asyncio.get_running_loop()
    async with gateway() as (client, _):
        assert client.base_url.port is not None
        with contextlib.closing(_connect(client.base_url.port)) as slow:
            async with asyncio.timeout(8):
                with contextlib.suppress(ConnectionError):
                    await loop.sock_sendall(slow, first)
                    while True:
                        await loop.sock_sendall(slow, more)
                        await asyncio.sleep(0.01)
        assert (await client.get("/healthz")).status_code == 200


async def _status(client: socket.socket, sent: bytes, kept: int) -> bytes:
    """Sends a part of a body; returns the status of the reply, or b"" once so much is kept."""
    await asyncio.get_running_loop().sock_sendall(client, sent)
    while body._unfinished[""] < kept:
        with contextlib.suppress(BlockingIOError):
            return client.recv(12)[-3:]
        await asyncio.sleep(0)
    return b""


@pytest.mark.parametrize("head", [POST, STREAM])
async def test_unfinished_bodies_are_bounded_in_all_and_for_each_address(
    head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "_MOST_UNFINISHED", 1 << 20)
    head += b"content-type: application/json\r\ncontent-length: 9999999\r\n\r\n"
    async with gateway() as (client, _), asyncio.timeout(20):
        port = client.base_url.port
        assert port is not None
        with contextlib.ExitStack() as stack:

            async def send(source: int, size: int, kept: int) -> bytes:
                slow = _connect(port, f"127.0.0.{source}")
                stack.enter_context(contextlib.closing(slow))
                return await _status(slow, head + b"x" * ((64 + size) << 10), kept << 10)

            # In KiB, without the first 64 of each, which do not count.
            assert await send(1, 400, kept=400) == b""
            assert await send(1, 200, kept=600) == b"429"
            assert await send(2, 500, kept=900) == b""
            assert await send(3, 200, kept=1_100) == b"429"
            search = {"query": {"text": "shoe " * 10_000}}
            small = await client.post("/v1/collections/shop/search", json=search)
            assert small.status_code != 429
        while body._unfinished:
            await asyncio.sleep(0)


@contextlib.contextmanager
def _unread(port: int, number: int) -> Iterator[None]:
    """Holds connections whose clients ask much and read nothing."""
    with contextlib.ExitStack() as stack:
        for _ in range(number):
            client = stack.enter_context(contextlib.closing(_connect(port)))
            client.sendall(DOCUMENT * 60)
        yield


async def test_clients_that_do_not_read_keep_nobody_else_out() -> None:
    port = free_port()
    own = ("--port", str(port), "--max-requests", "16")
    loop = asyncio.get_running_loop()
    async with service_process("gateway", own, ready_services=()) as process:
        with _unread(port, 40):
            start = time.monotonic()
            assert await asyncio.to_thread(health.check, f"127.0.0.1:{port}") == ""
            assert time.monotonic() - start < 5
            # Another address has places left.
            with contextlib.closing(_connect(port, "127.0.0.2")) as other:
                async with asyncio.timeout(10):
                    await loop.sock_sendall(other, DOCUMENT)
                    assert (await loop.sock_recv(other, 15)) == b"HTTP/1.1 200 OK"
        assert await process.stop(10.0) == 0

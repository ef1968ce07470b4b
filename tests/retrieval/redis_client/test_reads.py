"""Concurrent reads get their own replies and fail independently."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from nearline.errors import NotReady
from nearline_cli.local.processes import free_port
from retrieval.redis_client.connection import RedisReader, connect
from tests.loopback_server import loopback_server
from tests.redis_server import needs_redis, valkey

pytestmark = [pytest.mark.service, needs_redis]


async def test_concurrent_calls_get_their_own_replies() -> None:
    async with valkey() as url, connect(url, timeout_s=10.0) as client:
        await client.hset("hash", mapping={"a": "1", "b": "2"})
        await client.set("text", "3")
        # Two hundred connections take a busy machine a while; this is not about time.
        reads = RedisReader(client, "lists", 20.0)
        given_up = asyncio.ensure_future(reads.ask(("GET", "text")))
        await asyncio.sleep(0)
        given_up.cancel()
        answers = await asyncio.gather(
            *(reads.ask(("HMGET", "hash", "a", "b"), ("GET", "text")) for _ in range(200)),
            # Of another kind: only who asked so is told.
            reads.ask(("HMGET", "text", "a")),
            return_exceptions=True,
        )
        assert answers[:-1] == [[[b"1", b"2"], b"3"]] * 200
        assert isinstance(answers[-1], NotReady) and "WRONGTYPE" in answers[-1].message
        assert given_up.cancelled()
        assert await reads.ask(("GET", "text")) == [b"3"]


async def test_a_closed_connection_is_replaced() -> None:
    async with (
        valkey() as url,
        connect(url, timeout_s=10.0, retries=0) as client,
        connect(url, timeout_s=10.0) as other,
    ):
        await other.set("text", "3")
        reads = RedisReader(client, "lists", 10.0)
        for _ in range(2):
            assert await reads.ask(("GET", "text")) == [b"3"]
            assert await other.client_kill_filter(_type="normal", skipme=True) == 1


async def test_an_unavailable_or_hanging_redis_fails_fast() -> None:
    away = connect(f"redis://127.0.0.1:{free_port()}/0", retries=0)
    with pytest.raises(NotReady, match="does not answer"):
        await RedisReader(away, "lists", 0.5).ask(("GET", "text"))
    await away.aclose()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read(-1)

    async with loopback_server(say_nothing) as port:
        client = connect(f"redis://127.0.0.1:{port}/0", timeout_s=10.0, retries=0)
        reads = RedisReader(client, "lists", 0.5)
        started = asyncio.get_running_loop().time()
        for answer in await asyncio.gather(
            *(reads.ask(("GET", "text")) for _ in range(3)), return_exceptions=True
        ):
            assert isinstance(answer, NotReady)
        assert asyncio.get_running_loop().time() - started < 5
        await client.aclose()


async def test_an_event_loop_that_was_busy_does_not_take_redis_for_unavailable() -> None:
    async with valkey() as url, connect(url, timeout_s=10.0, retries=0) as client:
        ping = asyncio.ensure_future(client.ping())
        await asyncio.sleep(0)
        # Holds up the loop, as the work of many other requests does.
        time.sleep(1.0)
        assert await ping

"""A lease: one holder at a time, bounded in time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from nearline.errors import NotReady
from nearline_cli.local.processes import free_port
from retrieval.redis_client import lease as leases
from retrieval.redis_client.connection import Redis, connect
from retrieval.redis_client.lease import RedisLease
from tests.redis_server import needs_redis, valkey
from tests.waits import until

pytestmark = [pytest.mark.service, needs_redis]
NAME = "nl:{default}:lease"
FOR = "tests"


@pytest_asyncio.fixture(name="client")
async def give_client() -> AsyncIterator[Redis]:
    """Returns a client of an empty Redis."""
    async with valkey() as url, client_of(url) as client:
        yield client


@contextlib.asynccontextmanager
async def client_of(url: str) -> AsyncIterator[Redis]:
    client = connect(url, timeout_s=5.0, retries=0)
    try:
        yield client
    finally:
        await client.aclose()


async def until_ended(lease: RedisLease) -> None:
    await until(lambda: not lease.remaining_s)


async def test_one_process_holds_the_lease_until_it_releases_it(client: Redis) -> None:
    first, second = RedisLease(client, NAME, FOR), RedisLease(client, NAME, FOR)
    assert (first.remaining_s, first.term) == (0.0, 0)
    assert await first.acquire() and await first.acquire()
    assert first.term == 1 and 0 < first.remaining_s <= leases.TTL_S
    assert not await second.acquire()
    assert (second.remaining_s, second.term) == (0.0, 0)
    await second.release()
    assert not await second.acquire(), "only its holder gives it up"
    await first.release()
    assert first.remaining_s == 0.0
    assert await second.acquire()
    assert not await first.acquire()
    await second.release()
    assert await first.acquire() and first.term == 2
    await first.release()
    assert await client.get(NAME) is None


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="no clock counts a suspension")
async def test_a_lease_is_over_after_the_machine_was_suspended(
    client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease, read = RedisLease(client, NAME, FOR), time.clock_gettime
    assert await lease.acquire()
    # The monotonic clock stood still meanwhile.
    monkeypatch.setattr(
        time, "clock_gettime", lambda one: read(one) + 60 * (one == time.CLOCK_BOOTTIME)
    )
    assert lease.remaining_s == 0.0
    await lease.release()


async def test_the_lease_is_renewed_while_held_and_expires_without_its_holder(
    client: Redis,
) -> None:
    first, second = RedisLease(client, NAME, FOR, 0.5), RedisLease(client, NAME, FOR, 0.5)
    assert await first.acquire()
    for _ in range(10):
        await asyncio.sleep(0.1)
        assert first.remaining_s and not await second.acquire()
    await first._stop_renewing()
    await until(second.acquire)
    assert first.remaining_s == 0.0, "it ends here before it ends there"
    assert first.term == second.term == 1
    await second.release()


async def test_a_lease_taken_over_by_another_router_is_lost(client: Redis) -> None:
    first = RedisLease(client, NAME, FOR, 1.0)
    assert await first.acquire()
    await client.set(NAME, "another")
    await until_ended(first)
    assert not await first.acquire()
    await client.delete(NAME)
    assert await first.acquire() and first.term == 2
    await first.release()


async def test_without_redis_the_lease_expires_with_an_error(tmp_path: Path) -> None:
    port = free_port()
    async with client_of(f"redis://127.0.0.1:{port}/0") as client:
        async with valkey(tmp_path, port):
            lease = RedisLease(client, NAME, FOR, 1.0)
            assert await lease.acquire()
        await until_ended(lease)
        with pytest.raises(NotReady, match="tests need it"):
            await lease.acquire()
        async with valkey(tmp_path, port):
            await until(lease.acquire)
            assert lease.term == 2
            await lease.release()

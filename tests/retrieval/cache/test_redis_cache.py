"""Caches of several routers that share a Redis, which is slow, killed and restarted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from nearline.errors import FeedBlocked
from nearline_cli.local.processes import free_port
from retrieval.cache.cached_list import CacheLevel, ListKey
from retrieval.cache.redis_cache import redis_key
from retrieval.cache.tiered_cache import TieredCache
from retrieval.protocols import metrics
from retrieval.redis_client.connection import connect
from tests.redis_server import needs_redis, valkey
from tests.retrieval.cache.sample_lists import KEY, Clock, Maker, mark, number, until_idle
from tests.waits import until

pytestmark = [pytest.mark.service, needs_redis]


@contextlib.asynccontextmanager
async def router(
    url: str, clock: Clock, timeout_s: float = 5.0, **more: Any
) -> AsyncIterator[TieredCache]:
    """Yields the hot lists of one router: fresh for 10 s, served for 100; nothing is by chance."""
    async with connect(url, timeout_s=5) as client:
        lists = TieredCache(
            client,
            ttl_s=10,
            stale_s=100,
            redis_timeout_s=timeout_s,
            clock=clock,
            random=lambda: 0.5,
            **more,
        )
        try:
            yield lists
        finally:
            await lists.close()


@contextlib.asynccontextmanager
async def two_routers(
    url: str, clock: Clock
) -> AsyncIterator[tuple[TieredCache, TieredCache, Redis]]:
    """Yields the hot lists of two routers, and a client of their Redis."""
    async with (
        router(url, clock) as one,
        router(url, clock) as two,
        connect(url, timeout_s=10.0) as client,
    ):
        yield one, two, client


async def until_kept(client: Redis, key: ListKey = KEY) -> None:
    """Waits until a list is in Redis and nobody computes it; a lock would end after 5 s."""
    async with asyncio.timeout(4):
        while not await client.exists(redis_key(key)) or await client.exists(
            redis_key(key) + ":lock"
        ):
            await asyncio.sleep(0.005)


async def until_number(lists: TieredCache, maker: Maker, wanted: int) -> CacheLevel:
    """Waits until a list of some computation is given; gives where it came from."""
    async with asyncio.timeout(10):
        while True:
            hot, level = await lists.get(KEY, maker)
            if number(hot) == wanted:
                return level
            await asyncio.sleep(0.005)


async def test_a_list_computed_by_one_router_is_found_by_others(empty_redis: str) -> None:
    clock = Clock()
    maker, absent = Maker(clock, cost_s=0.1, watermark=mark(3).encode()), Maker(clock, absent=True)
    nobody = KEY._replace(of="item:nobody")
    async with two_routers(empty_redis, clock) as (one, two, client):
        made, _ = await one.get(KEY, maker)
        await one.get(nobody, absent)
        await until_kept(client)
        await until_kept(client, nobody)
        assert await two.get(KEY, maker) == (made, CacheLevel.REDIS)
        assert await two.get(KEY, maker) == (made, CacheLevel.NEAR)
        assert await two.get(nobody, absent) == (None, CacheLevel.REDIS)
        assert (maker.made, absent.made) == (1, 1)
        # Each goes by itself, as long as it is served.
        assert 99_000 < await client.pttl(redis_key(KEY)) <= 100_000
        assert 9_000 < await client.pttl(redis_key(nobody)) <= 10_000
        # Another snapshot's lists are others.
        _, level = await two.get(KEY._replace(snapshot_id="snapshot2"), maker)
        assert level is CacheLevel.LIVE
        # One who needs changes that it lacks has a newer one made, which serves the first as well.
        maker.watermark = mark(4).encode()
        hot, level = await two.get(KEY, maker, mark(4))
        assert (number(hot), level) == (3, CacheLevel.LIVE)
        await two.close()
        hot, level = await one.get(KEY, maker, mark(4))
        assert (number(hot), level) == (3, CacheLevel.REDIS)


async def test_one_of_two_routers_refreshes_and_the_other_serves_the_stale_list(
    empty_redis: str,
) -> None:
    clock = Clock()
    mine, theirs = Maker(clock), Maker(clock, made=10)
    async with two_routers(empty_redis, clock) as (one, two, client):
        await one.get(KEY, mine)
        await until_kept(client)
        await two.get(KEY, theirs)
        clock.goes_on(20)
        mine.may.clear()
        assert (await one.get(KEY, mine))[1] is CacheLevel.STALE
        await until(lambda: mine.made >= 2)
        for _ in range(20):
            hot, level = await two.get(KEY, theirs)
            assert (number(hot), level) == (1, CacheLevel.STALE)
            clock.goes_on(0.5)
            await asyncio.sleep(0.005)
        assert theirs.made == 10
        assert 0 < await client.pttl(redis_key(KEY) + ":lock") <= 5_000
        # One who has nothing at all does not wait for it.
        clock.goes_on(100)
        hot, level = await two.get(KEY, theirs)
        assert (number(hot), level) == (11, CacheLevel.LIVE)
        mine.may.set()
        await until_kept(client)


async def test_a_refreshed_list_reaches_the_others(empty_redis: str) -> None:
    clock = Clock()
    mine, theirs = Maker(clock), Maker(clock, made=10)
    async with router(empty_redis, clock) as one, router(empty_redis, clock) as two:
        async with connect(empty_redis, timeout_s=10.0) as client:
            await one.get(KEY, mine)
            await until_kept(client)
            await two.get(KEY, theirs)
            clock.goes_on(20)
            assert await until_number(one, mine, 2) is CacheLevel.NEAR
            await until_kept(client)
            assert await until_number(two, theirs, 2) is CacheLevel.NEAR
            assert theirs.made == 10
            # It was taken, not made: the lock is free again.
            await until_kept(client)


async def test_a_stale_list_in_redis_is_better_than_waiting(empty_redis: str) -> None:
    clock = Clock()
    maker = Maker(clock)
    async with router(empty_redis, clock) as one, connect(empty_redis, timeout_s=10.0) as client:
        await one.get(KEY, maker)
        await until_kept(client)
    clock.goes_on(50)
    async with router(empty_redis, clock) as two:
        found = await asyncio.gather(*(two.get(KEY, maker) for _ in range(100)))
        assert {(number(hot), level) for hot, level in found} == {(1, CacheLevel.STALE)}
        await until_number(two, maker, 2)
        assert maker.made == 2


async def test_an_error_lets_another_router_try(empty_redis: str) -> None:
    clock = Clock()
    broken, works = Maker(clock, error=ValueError("broken")), Maker(clock)
    async with router(empty_redis, clock) as one, connect(empty_redis, timeout_s=10.0) as client:
        with pytest.raises(ValueError, match="broken"):
            await one.get(KEY, broken)
        async with asyncio.timeout(4):
            while await client.exists(redis_key(KEY) + ":lock"):
                await asyncio.sleep(0.005)
        async with router(empty_redis, clock) as two:
            assert (await two.get(KEY, works))[1] is CacheLevel.LIVE


async def test_a_failed_refresh_lets_another_router_refresh(empty_redis: str) -> None:
    clock = Clock()
    mine, theirs = Maker(clock), Maker(clock, made=10)
    async with two_routers(empty_redis, clock) as (one, two, client):
        await one.get(KEY, mine)
        await until_kept(client)
        clock.goes_on(20)
        mine.error = ValueError("broken")
        assert (await one.get(KEY, mine))[1] is CacheLevel.STALE
        await until(lambda: mine.made >= 2)
        # Long before the lock would end by itself.
        await until_kept(client)
        await until_number(two, theirs, 11)


async def test_a_damaged_list_is_computed_again(empty_redis: str) -> None:
    clock = Clock()
    maker = Maker(clock)
    async with router(empty_redis, clock) as lists, connect(empty_redis, timeout_s=10.0) as client:
        await client.set(redis_key(KEY), b'[1,2,"damaged')
        assert (await lists.get(KEY, maker))[1] is CacheLevel.LIVE


async def test_a_slow_redis_is_not_waited_for(empty_redis: str) -> None:
    clock = Clock()
    maker = Maker(clock)
    before = metrics.hot_redis_failures._value.get()
    async with (
        router(empty_redis, clock, timeout_s=0.05) as lists,
        connect(empty_redis, timeout_s=5) as client,
    ):
        await client.client_pause(1_000)
        began = time.monotonic()
        for one in range(20):
            key = KEY._replace(of=f"item:{one}")
            assert (await lists.get(key, maker))[1] is CacheLevel.LIVE
        # One waits for 50 ms; then it is left alone.
        assert time.monotonic() - began < 0.8
        assert metrics.hot_redis_failures._value.get() == before + 1
        await client.ping()


async def test_a_killed_redis_fails_no_request_and_is_used_again_later(tmp_path: Path) -> None:
    clock, port = Clock(), free_port()
    url = f"redis://127.0.0.1:{port}/0"
    maker = Maker(clock)
    asked = 0

    async def ask(lists: TieredCache) -> CacheLevel:
        nonlocal asked
        asked += 1
        hot, level = await lists.get(KEY._replace(of=f"item:{asked}"), maker)
        assert hot is not None
        return level

    async with router(url, clock) as lists:
        async with valkey(tmp_path / "redis", port), connect(url, timeout_s=10.0) as client:
            pid = int((await client.info("server"))["process_id"])
            stop = asyncio.Event()

            async def go_on() -> None:
                while not stop.is_set():
                    assert await ask(lists) is CacheLevel.LIVE
                    await asyncio.sleep(0)

            tasks = [asyncio.create_task(go_on()) for _ in range(4)]
            while asked < 100:
                await asyncio.sleep(0)
            os.kill(pid, signal.SIGKILL)
            at_kill = asked
            while asked < at_kill + 200:
                await asyncio.sleep(0)
            stop.set()
            await asyncio.gather(*tasks)
        async with valkey(tmp_path / "redis", port), connect(url, timeout_s=10.0) as client:
            async with asyncio.timeout(10):
                while not await client.exists(redis_key(KEY._replace(of=f"item:{asked}"))):
                    await ask(lists)
                    await until_idle()
                    await asyncio.sleep(0.02)


async def test_a_list_that_redis_may_not_keep_is_served_and_refreshed_all_the_same() -> None:
    asked: list[tuple[int, float]] = []

    async def reserve(size: int, keep_s: float) -> None:
        asked.append((size, keep_s))
        raise FeedBlocked("the tenant has no bytes left")

    clock = Clock()
    maker = Maker(clock)
    async with valkey() as url, connect(url, timeout_s=10.0) as client:
        async with router(url, clock, reserve=reserve) as lists:
            for seconds in (0, 0, 11):
                clock.goes_on(seconds)
                assert number((await lists.get(KEY, maker))[0]) == 1
            assert await until_number(lists, maker, 2) is CacheLevel.NEAR
        # Closed, it waits for no lock, and nothing is left.
        assert await client.keys("*") == []
    assert [keep_s for _, keep_s in asked] == [100, 100] and min(asked)[0] > 50

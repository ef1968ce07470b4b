"""Cached lists in one process, without Redis."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client import Counter

from nearline.errors import NotReady
from retrieval.cache.cached_list import CachedList, CacheLevel, CacheLifetimes
from retrieval.cache.tiered_cache import LocalCache, TieredCache
from retrieval.protocols import metrics
from tests.retrieval.cache.sample_lists import KEY, Clock, Maker, mark, number, until_idle

Open = Callable[..., TieredCache]


@pytest.fixture(name="clock")
def give_clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture(name="opened")
async def give_opened(clock: Clock) -> AsyncIterator[Open]:
    """Returns what makes caches; nothing is drawn by chance unless a test says so."""
    made: list[TieredCache] = []

    def make(**options: Any) -> TieredCache:
        made.append(TieredCache(None, **{"clock": clock, "random": lambda: 0.5, **options}))
        return made[-1]

    yield make
    for one in made:
        await one.close()


def counted(counter: Counter, *labels: str) -> float:
    return float(counter.labels(*labels)._value.get())


async def test_500_concurrent_requests_share_one_computation(opened: Open, clock: Clock) -> None:
    lists, maker = opened(), Maker(clock)
    key = KEY._replace(collection="stampede")
    found = await asyncio.gather(*(lists.get(key, maker) for _ in range(500)))
    assert maker.made == 1
    assert {(number(hot), level) for hot, level in found} == {(1, CacheLevel.LIVE)}
    hot, level = await lists.get(key, maker)
    assert (number(hot), level, maker.made) == (1, CacheLevel.NEAR, 1)
    assert counted(metrics.hot_reads, "stampede", "live") == 500
    assert counted(metrics.hot_reads, "stampede", "near") == 1
    assert counted(metrics.hot_computations, "stampede", "made") == 1


async def test_a_cancelled_request_does_not_cancel_the_computation_of_others(
    opened: Open, clock: Clock
) -> None:
    lists, maker = opened(), Maker(clock)
    maker.may.clear()
    first, second = (asyncio.create_task(lists.get(KEY, maker)) for _ in range(2))
    await until_idle()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    maker.may.set()
    assert number((await second)[0]) == 1
    # Nor for himself: what all went away from is there when they come back.
    lists, maker = opened(), Maker(clock)
    maker.may.clear()
    alone = asyncio.create_task(lists.get(KEY, maker))
    await until_idle()
    alone.cancel()
    maker.may.set()
    await until_idle()
    assert (await lists.get(KEY, maker))[1] is CacheLevel.NEAR


async def test_an_error_reaches_all_requests_and_is_dropped_after_a_second(
    opened: Open, clock: Clock
) -> None:
    lists, maker = opened(), Maker(clock, error=ValueError("broken"))
    asked = (lists.get(KEY, maker) for _ in range(50))
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert [str(one) for one in found] == ["broken"] * 50
    clock.goes_on(0.999)
    with pytest.raises(ValueError, match="broken"):
        await lists.get(KEY, maker)
    assert maker.made == 1
    # It is not taken for an error of another list.
    assert (await lists.get(KEY._replace(of="item:7"), Maker(clock)))[1] is CacheLevel.LIVE
    clock.goes_on(0.001)
    maker.error = None
    assert number((await lists.get(KEY, maker))[0]) == 2


async def test_a_list_is_fresh_then_stale_then_gone(opened: Open, clock: Clock) -> None:
    lists, maker = opened(ttl_s=10, stale_s=100), Maker(clock)
    await lists.get(KEY, maker)
    clock.goes_on(9.999)
    assert (await lists.get(KEY, maker))[1] is CacheLevel.NEAR
    await until_idle()
    assert maker.made == 1
    clock.goes_on(0.001)
    maker.may.clear()
    for _ in range(5):
        hot, level = await lists.get(KEY, maker)
        assert (number(hot), level) == (1, CacheLevel.STALE)
        await until_idle()
    assert maker.made == 2
    maker.may.set()
    await until_idle()
    hot, level = await lists.get(KEY, maker)
    assert (number(hot), level) == (2, CacheLevel.NEAR)
    clock.goes_on(100)
    hot, level = await lists.get(KEY, maker)
    assert (number(hot), level) == (3, CacheLevel.LIVE)


async def test_a_failed_refresh_keeps_the_stale_list(opened: Open, clock: Clock) -> None:
    lists, maker = opened(ttl_s=10, stale_s=100), Maker(clock)
    await lists.get(KEY, maker)
    maker.error = ValueError("broken")
    clock.goes_on(20)
    for _ in range(5):
        hot, level = await lists.get(KEY, maker)
        assert (number(hot), level) == (1, CacheLevel.STALE)
        await until_idle()
    # It is tried once a second.
    assert maker.made == 2
    clock.goes_on(1)
    assert (await lists.get(KEY, maker))[1] is CacheLevel.STALE
    await until_idle()
    assert maker.made == 3
    clock.goes_on(79)
    with pytest.raises(ValueError, match="broken"):
        await lists.get(KEY, maker)


async def test_a_failed_refresh_raises_once_the_stale_list_expired(
    opened: Open, clock: Clock
) -> None:
    lists, maker = opened(ttl_s=10, stale_s=100), Maker(clock)
    await lists.get(KEY, maker)
    maker.error = ValueError("broken")
    maker.may.clear()
    clock.goes_on(99)
    assert (await lists.get(KEY, maker))[1] is CacheLevel.STALE
    await until_idle()
    clock.goes_on(1)
    asked = asyncio.create_task(lists.get(KEY, maker))
    await until_idle()
    maker.may.set()
    with pytest.raises(ValueError, match="broken"):
        await asked
    assert maker.made == 2


def test_a_newer_list_is_not_replaced_by_an_older_one(clock: Clock) -> None:
    near, ages = (
        LocalCache(10, 60),
        CacheLifetimes(ttl_s=1, stale_s=1, negative_s=1, random=lambda: 0.5),
    )
    for computed_us, kept_us in ((5, 5), (4, 5), (6, 6)):
        near.put(KEY, ages.entry(CachedList((), (), computed_us, 0.0), clock()))
        held = near.get(KEY)
        assert held is not None and held.computed_us == kept_us
    near.close()


async def test_a_missing_item_is_remembered_for_a_while(opened: Open, clock: Clock) -> None:
    lists, maker = opened(negative_s=10), Maker(clock, absent=True)
    assert await lists.get(KEY, maker) == (None, CacheLevel.LIVE)
    clock.goes_on(9.999)
    assert await lists.get(KEY, maker) == (None, CacheLevel.NEAR)
    assert maker.made == 1
    clock.goes_on(0.001)
    maker.absent = False
    hot, level = await lists.get(KEY, maker)
    assert (number(hot), level) == (2, CacheLevel.LIVE)


async def test_a_request_for_newer_changes_computes_the_list(opened: Open, clock: Clock) -> None:
    lists, maker = opened(), Maker(clock, watermark=mark(5).encode())
    await lists.get(KEY, maker)
    assert (await lists.get(KEY, maker, mark(5)))[1] is CacheLevel.NEAR
    maker.watermark = mark(6).encode()
    newer = mark(5).advanced({3: 6})
    found = await asyncio.gather(*(lists.get(KEY, maker, newer) for _ in range(50)))
    assert {(number(hot), level) for hot, level in found} == {(2, CacheLevel.LIVE)}
    for least in (None, mark(5), newer):
        hot, level = await lists.get(KEY, maker, least)
        assert (number(hot), level) == (2, CacheLevel.NEAR)


async def test_a_request_for_unavailable_changes_fails_alone(opened: Open, clock: Clock) -> None:
    lists, maker, ahead = opened(), Maker(clock), Maker(clock, error=NotReady("not applied yet"))
    ahead.may.clear()
    asked = asyncio.create_task(lists.get(KEY, ahead, mark(9)))
    await until_idle()
    assert (await lists.get(KEY, maker))[1] is CacheLevel.LIVE
    ahead.may.set()
    with pytest.raises(NotReady, match="not applied yet"):
        await asked
    assert (await lists.get(KEY, maker))[1] is CacheLevel.NEAR


async def test_an_expensive_list_is_refreshed_early(opened: Open, clock: Clock) -> None:
    chance = 0.5
    lists = opened(ttl_s=10, stale_s=100, random=lambda: chance)
    maker, key = Maker(clock, cost_s=1.0), KEY._replace(collection="early")
    await lists.get(key, maker)
    # -ln(0.5) x 1 s = 0.693 s before its end.
    clock.goes_on(9.3)
    await lists.get(key, maker)
    await until_idle()
    assert maker.made == 1
    clock.goes_on(0.01)
    maker.may.clear()
    for _ in range(3):
        assert (await lists.get(key, maker))[1] is CacheLevel.NEAR
        await until_idle()
    assert maker.made == 2
    maker.may.set()
    await until_idle()
    hot, level = await lists.get(key, maker)
    assert (number(hot), level) == (2, CacheLevel.NEAR)
    assert counted(metrics.hot_early_refreshes, "early") == 1


async def test_the_capacity_is_not_exceeded(opened: Open, clock: Clock) -> None:
    lists, maker = opened(capacity=100), Maker(clock)
    for one in range(1_000):
        await lists.get(KEY._replace(of=f"item:{one}"), maker)
    # A few wait to be let in or not.
    assert 50 <= len(lists) <= 116


async def test_the_most_requested_lists_are_computed_ahead_for_a_new_snapshot(
    opened: Open, clock: Clock
) -> None:
    lists, maker, broken = opened(), Maker(clock), Maker(clock, error=ValueError("broken"))
    for one in range(20):
        for _ in range(one + 1):
            await lists.get(KEY._replace(of=f"item:{one}"), maker)
    most_requested = lists.most_requested("default", 10)
    assert most_requested == [f"item:{one}" for one in range(19, 9, -1)]
    new = [KEY._replace(snapshot_id="snapshot2", of=of) for of in most_requested]
    fresh = Maker(clock)
    makers = [broken if key.of == "item:15" else fresh for key in new]
    assert await lists.prewarm(zip(new, makers, strict=True), at_once=4) == 9
    assert (fresh.made, fresh.most_at_once) == (9, 4)
    assert lists.most_requested("default", 10) == most_requested
    for key in new:
        if key.of != "item:15":
            assert (await lists.get(key, fresh))[1] is CacheLevel.NEAR
    # What is ready is not computed again.
    assert await lists.prewarm([(new[0], fresh), (new[1], fresh)]) == 2
    assert fresh.made == 9


async def test_a_full_cache_keeps_lists_that_were_computed_ahead(
    opened: Open, clock: Clock
) -> None:
    lists, maker = opened(capacity=100, ttl_s=10, stale_s=100), Maker(clock)
    for _ in range(5):
        for one in range(100):
            await lists.get(KEY._replace(of=f"item:{one}"), maker)
    new = [KEY._replace(snapshot_id="snapshot2", of=f"item:{one}") for one in range(10)]
    assert await lists.prewarm((key, maker) for key in new) == 10
    for one in range(200):
        await lists.get(KEY._replace(of=f"item:{one}"), maker)
    assert [(await lists.get(key, maker))[1] for key in new] == [CacheLevel.NEAR] * 10
    # It ages, and is refreshed, as all do.
    clock.goes_on(20)
    assert (await lists.get(new[0], maker))[1] is CacheLevel.STALE
    await until_idle()
    assert (await lists.get(new[0], maker))[1] is CacheLevel.NEAR
    # The next that are got ready take its place.
    newest = [KEY._replace(snapshot_id="snapshot3", of=f"item:{one}") for one in range(20)]
    assert await lists.prewarm((key, maker) for key in newest) == 20
    assert len(lists) <= 126


async def test_requests_that_wait_when_the_cache_closes_get_an_error(clock: Clock) -> None:
    lists, maker = TieredCache(None, clock=clock), Maker(clock)
    maker.may.clear()
    asked = asyncio.create_task(lists.get(KEY, maker))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(asked), 0.01)
    await lists.close()
    with pytest.raises(NotReady, match="shutting down"):
        await asked

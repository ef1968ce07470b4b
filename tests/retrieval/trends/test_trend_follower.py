"""What is recorded is published, by one process, and what is deleted no longer counts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis import Redis

from nearline.contract.recommendations import Interaction
from nearline.times import to_us
from nearline.v1 import snapshot_pb2
from retrieval.redis_client.connection import connect
from retrieval.trends import trend_follower
from retrieval.trends.interaction_window import UNTRAINED, Trained
from retrieval.trends.trend_follower import Progress, TrendFollower
from retrieval.trends.trend_lists import NO_TRENDS, TrendItems, TrendLists, trend_keys
from retrieval.trends.trend_reader import TrendReader
from retrieval.trends.trend_upkeep import trained_counts
from retrieval.users.states import UserStates
from tests.redis_server import needs_redis
from tests.retrieval.users.interactions import at, seen

pytestmark = [pytest.mark.service, needs_redis]
KEYS = trend_keys("c")


@contextlib.asynccontextmanager
async def follower(url: str, **options: Any) -> AsyncIterator[TrendFollower]:
    client = connect(url, timeout_s=10.0, retries=0)
    one = TrendFollower(client, "c", **options)
    try:
        yield one
    finally:
        await one.close()
        await client.aclose()


def published(url: str) -> tuple[TrendLists, dict[str, TrendItems]]:
    with Redis.from_url(url) as client:
        lists: Any = client.hget(KEYS.lists, "lists")
        related: Any = client.hgetall(KEYS.related)
    return (
        TrendLists.decode(lists),
        {item.decode(): TrendItems.decode(data) for item, data in related.items()},
    )


def visits(count: int, *item_ids: str, start: float = 0) -> list[Interaction]:
    """Returns visits of some items by as many users."""
    return [
        seen(item_id, start + place, f"user {user}")
        for user in range(count)
        for place, item_id in enumerate(item_ids)
    ]


def popular(url: str) -> dict[str, float]:
    found = published(url)[0].popular
    return dict(zip(found.ids, found.scores, strict=True))


async def test_every_round_publishes_what_was_recorded(
    states: UserStates, shared_redis: str
) -> None:
    async with follower(shared_redis) as one:
        assert await one.advance(UNTRAINED) == Progress(0.0, 0)
        assert published(shared_redis) == (NO_TRENDS._replace(trending_days=7.0), {})
        await states.record("c", visits(3, "a", "b"))
        await states.record("c", [seen("a", 9, "", session_id="s"), seen("new", 10, "x")])
        progress = await one.advance(UNTRAINED)
        assert progress is not None and progress.rows == 8 and 0 < progress.lag_s < 60
        lists, related = published(shared_redis)
        assert lists.newest_us == to_us(at(10))
        assert popular(shared_redis) == {"a": 4.0, "b": 3.0, "new": 1.0}
        # "new" is as new as can be; "a" has more, half of them older.
        assert set(lists.trending.ids) == {"a", "b", "new"}
        assert {item: found.ids for item, found in related.items()} == {"a": ("b",), "b": ("a",)}
        with Redis.from_url(shared_redis) as client:
            assert all(0 < client.ttl(key) <= 86_400 for key in KEYS[:2])


async def test_a_new_follower_publishes_the_same(states: UserStates, shared_redis: str) -> None:
    async with follower(shared_redis) as one:
        for start in range(5):
            await states.record("c", visits(start + 2, *"abcdefgh"[start : start + 3], start=start))
            await one.advance(UNTRAINED)
        await states.delete("c", "user 1")
        for _ in range(3):
            await one.advance(UNTRAINED)
        before = published(shared_redis)
    with Redis.from_url(shared_redis) as client:
        # Both are overwritten, and an item whose visitors are gone has no list.
        client.hset(KEYS.lists, "version", b"other")
        client.hset(KEYS.related, mapping={"a": b"", "gone": TrendItems(("b",), (1.0,)).encode()})
    async with follower(shared_redis) as two:
        await two.advance(UNTRAINED)
    assert published(shared_redis) == before


async def test_a_deleted_user_is_in_no_count(states: UserStates, shared_redis: str) -> None:
    async with follower(shared_redis) as one:
        await states.record("c", visits(2, "a", "b"))
        await states.record("c", [seen("a", 5, "erased", session_id="own")])
        await states.record("c", [seen("b", 6, "", session_id="own"), seen("b", 7, "erased")])
        await states.record("c", [seen("only", 8, "erased", session_id="own")])
        await one.advance(UNTRAINED)
        assert popular(shared_redis) == {"a": 3.0, "b": 4.0, "only": 1.0}
        await states.delete("c", "erased")
        # What is recorded afterwards counts.
        await states.record("c", [seen("back", 9, "erased")])
        await one.advance(UNTRAINED)
        expected = {"a": 2.0, "b": 2.0, "back": 1.0}
        assert popular(shared_redis) == expected
        # The other user of a pair that visited both was one of two.
        await states.delete("c", "user 0")
        await one.advance(UNTRAINED)
        assert published(shared_redis)[1] == {}
    # The second "b" is of the session alone.
    logged = [one.item_id async for one in states.logged("c")]
    assert sorted(logged) == ["a", "b", "b", "back"]
    async with follower(shared_redis) as two:
        await two.advance(UNTRAINED)
        assert popular(shared_redis) == {"a": 1.0, "b": 1.0, "back": 1.0}


async def test_one_of_several_followers_publishes(states: UserStates, shared_redis: str) -> None:
    async with follower(shared_redis) as one, follower(shared_redis) as two:
        assert await one.advance(UNTRAINED) is not None
        assert await two.advance(UNTRAINED) is None
        await states.record("c", visits(1, "a"))
        await one.close()
        progress = await two.advance(UNTRAINED)
        assert progress is not None and progress.rows == 1
        assert popular(shared_redis) == {"a": 1.0}


async def test_only_what_the_models_do_not_know_counts(
    states: UserStates, shared_redis: str
) -> None:
    await states.record("c", [seen("a", 1), seen("b", 2)])
    await states.record("c", [Interaction(item_id="b", user_id="u", kind="hide", time=at(3))])
    async with follower(shared_redis) as one:
        await one.advance(UNTRAINED)
        assert popular(shared_redis) == {"a": 1.0, "b": 2.0}
        await one.advance(Trained(to_us(at(1)), {"hide": 0.0, "view": 1.0}))
        assert popular(shared_redis) == {"b": 1.0}
        await one.advance(Trained(to_us(at(0)), {"hide": 2.0}))
        assert popular(shared_redis) == {"b": 2.0}
        await one.advance(Trained(to_us(at(5)), {"hide": 2.0}))
        assert popular(shared_redis) == {}
        assert published(shared_redis)[0].newest_us == to_us(at(5))


def test_what_models_counted_is_read_from_the_manifest() -> None:
    manifest = snapshot_pb2.Manifest()
    assert trained_counts(manifest) == UNTRAINED
    manifest.behaviour.newest_time.FromMicroseconds(7_000_000)
    manifest.behaviour.kind_weights["buy"] = 5.0
    assert trained_counts(manifest) == Trained(7_000_000, {"buy": 5.0})
    manifest.behaviour.popularity_table = "popularity_15d"
    assert trained_counts(manifest).popular_days == 15.0


async def test_lists_are_bounded(
    states: UserStates, shared_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trend_follower, "_MOST_LISTS", 3)
    async with follower(shared_redis, limit=20) as one:
        await states.record("c", visits(2, *"abcdefgh"))
        for _ in range(3):
            await one.advance(UNTRAINED)
        assert len(published(shared_redis)[1]) == 3
        await states.record("c", visits(30, "x"))
        progress = await one.advance(UNTRAINED)
        assert progress is not None and progress.rows <= 20


async def test_owners_that_were_left_out_come_back(states: UserStates, shared_redis: str) -> None:
    async with follower(shared_redis, limit=48) as one:
        await states.record("c", visits(60, "a"))
        progress = await one.advance(UNTRAINED)
        assert progress is not None and 2 * progress.rows == popular(shared_redis)["a"]
        for user in range(54):
            await states.delete("c", f"user {user}")
        for _ in range(2):
            progress = await one.advance(UNTRAINED)
        assert progress is not None and progress.rows == popular(shared_redis)["a"] == 6


async def test_a_reader_keeps_what_it_knows(
    states: UserStates, shared_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(shared_redis, timeout_s=10.0, retries=0)
    reader = TrendReader(client, "c")
    await reader.refresh()
    assert reader.lists == NO_TRENDS
    async with follower(shared_redis) as one:
        await states.record("c", visits(2, "a", "b"))
        await one.advance(UNTRAINED)
    # They are a moment old, then too old.
    assert await reader.read() == NO_TRENDS
    later = time.monotonic() + 3
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert await reader.read() == published(shared_redis)[0] != NO_TRENDS
    monkeypatch.undo()
    assert [found.ids for found in await reader.related(["b", "x"])] == [("a",), ()]
    with Redis.from_url(shared_redis) as redis:
        redis.hset(KEYS.related, "b", b"\xff")
        redis.hset(KEYS.lists, mapping={"version": b"2", "lists": b"\xff"})
        assert [found.ids for found in await reader.related(["b"])] == [()]
        await reader.refresh()
        assert reader.lists == NO_TRENDS
        redis.delete(KEYS.lists)
        redis.set(KEYS.lists, b"no hash")
        await reader.refresh()
    assert reader.lists == NO_TRENDS
    assert [found.ids for found in await reader.related(["a"])] == [()]  # During the cool-down.
    await client.aclose()

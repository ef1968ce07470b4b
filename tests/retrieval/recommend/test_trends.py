"""Lists of a service that reads trends from a real Redis, with expectations computed by hand."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from nearline import contract as c
from nearline.contract import Audience, RecommendOptions
from nearline.times import DAY_US
from retrieval.behaviour.model import BehaviourModel
from retrieval.cache.tiered_cache import TieredCache
from retrieval.recommend.cached_candidates import CandidateCache
from retrieval.recommend.personal_lists import PersonalLists
from retrieval.recommend.policies import default_policies
from retrieval.recommend.service import RecommendationService
from retrieval.redis_client.connection import connect
from retrieval.trends.trend_lists import NO_TRENDS, TrendItems, TrendLists, trend_keys
from retrieval.trends.trend_reader import TrendReader
from retrieval.users.records import EMPTY_STATE, StoredState, UserEvent, UserState
from tests.redis_server import give_shared_redis, needs_redis
from tests.retrieval.recommend.small_model import learned
from tests.retrieval.recommend.test_service import GOES, HAD, IDS, POPULARITY, ids, recommender

pytestmark = [pytest.mark.service, needs_redis]
__all__ = ["give_shared_redis"]  # A fixture.
KEYS = trend_keys("default")
HOME, TRENDING = Audience(), Audience(surface="trending")
PAGE = Audience(item_ids=("new",), surface="item_page")
LISTS = NO_TRENDS._replace(
    trending=TrendItems(("new", "gone", "g"), (9.0, 8.0, 2.0)),
    popular=TrendItems(("g", "b", "new"), (5.0, 4.0, 1.0)),
)
RELATED = {
    "new": TrendItems(("d", "gone", "a"), (0.9, 0.5, 0.4)),
    "f": TrendItems(("d", "e"), (0.2, 0.1)),
}


class Trends:
    """A service, and the trends that it reads."""

    def __init__(self, service: RecommendationService, reader: TrendReader, redis: Redis) -> None:
        self.service = service
        self.reader = reader
        self._redis = redis

    async def publish(
        self, lists: TrendLists = LISTS, related: Mapping[str, TrendItems] = RELATED
    ) -> None:
        """Writes trends as upkeep does, and lets the service read them."""
        self._redis.hset(KEYS.lists, mapping=dict(lists.encode()))  # type: ignore[arg-type]
        for item, found in related.items():
            self._redis.hset(KEYS.related, item, found.encode())
        await self.reader.refresh()

    async def ask(
        self, audience: Audience, n: int = 4, **options: Any
    ) -> tuple[list[str], str, list[list[str]]]:
        """Returns the ids and the rung of a list, and the reasons of each item."""
        asked = RecommendOptions(n=n, explain=True, **options)
        reply = await self.service.recommend(audience, asked)
        reasons = [list(one.reasons) for one in reply.recommendations]
        served_by = reply.info.served_by
        return ids(reply), served_by.rung if served_by else "", reasons


class Histories:
    """States of users, each an item that they had."""

    def __init__(self) -> None:
        self.had: dict[str, tuple[str, ...]] = {}

    async def fetch(self, collection: str, user_id: str, session_id: str) -> StoredState:
        return StoredState("/".join(self.had.get(user_id, ())).encode(), b"", 0)

    async def decode(self, collection: str, stored: StoredState) -> UserState:
        if not stored.user:
            return EMPTY_STATE
        events = [UserEvent(one, 1, "view", None) for one in stored.user.decode().split("/")]
        return UserState(events, 0)


@contextlib.asynccontextmanager
async def trends(
    folder: Path,
    url: str,
    known: BehaviourModel | None = None,
    had: Mapping[str, tuple[str, ...]] = {},
    *,
    cached: bool = False,
) -> AsyncIterator[Trends]:
    client = connect(url, timeout_s=10.0, retries=0)
    reader = TrendReader(client, "default")
    cache = CandidateCache(TieredCache(None), {}) if cached else None
    states = Histories()
    states.had = dict(had)
    async with recommender(folder, known) as plain:
        (served,) = plain.collections.in_force
        served.trends = reader
        service = RecommendationService(
            plain.collections,
            default_policies(),
            states,  # type: ignore[arg-type]
            cache,
            PersonalLists({}),
        )
        with Redis.from_url(url) as redis:
            redis.flushall()
            yield Trends(service, reader, redis)
    if cache is not None:
        await cache.close()
    await client.aclose()


@pytest.fixture
def known() -> BehaviourModel:
    return learned(IDS, GOES, POPULARITY, HAD)


async def test_without_models_lists_are_live(tmp_path: Path, shared_redis: str) -> None:
    async with trends(tmp_path, shared_redis) as on:
        assert (await on.ask(HOME))[1] == "unordered"
        await on.publish()
        # "gone" does not exist; the others follow, new and different ones first.
        found, rung, reasons = await on.ask(TRENDING, 8)
        assert found[:2] == ["new", "g"] and set(found) == set(IDS) and rung == ""
        assert reasons[:3] == [["trending"], ["trending"], []]
        found, rung, reasons = await on.ask(HOME)
        assert found[:3] == ["g", "b", "new"] and rung == "popular"
        assert reasons == [["popular"]] * 3 + [[]]


async def test_an_item_that_the_model_does_not_know_gets_its_co_visits(
    tmp_path: Path, known: BehaviourModel, shared_redis: str
) -> None:
    async with trends(tmp_path, shared_redis, known) as on:
        assert (await on.ask(PAGE))[:2] == (["g", "f", "e", "d"], "content")
        await on.publish()
        found, rung, reasons = await on.ask(PAGE)
        # Similar items follow.
        assert found == ["d", "a", "g", "f"] and rung == ""
        assert reasons[:2] == [["because:new"], ["because:new"]]
        # What the model knows is as before.
        assert (await on.ask(replace(PAGE, item_ids=("a",)), 3))[0] == ["b", "c", "d"]


async def test_counts_of_the_model_fade_and_go_on(
    tmp_path: Path, known: BehaviourModel, shared_redis: str
) -> None:
    async with trends(tmp_path, shared_redis, known) as on:
        assert (await on.ask(HOME, 3))[0] == ["f", "a", "b"]
        await on.publish(LISTS._replace(newest_us=9 * DAY_US, trained_us=2 * DAY_US))
        # These count what came after other models, as for a canary: its own know it already.
        assert (await on.ask(HOME, 3))[0] == ["f", "a", "b"]
        (served,) = on.service.collections.in_force
        served.trained_us = 2 * DAY_US
        # Plain counts do not fade: f 9, a 8, b 7 + 4, g 1 + 5, new 1.
        reply = await on.service.recommend(HOME, RecommendOptions(n=8))
        assert {one.hit.id: one.hit.score for one in reply.recommendations} == {
            "b": 11.0, "f": 9.0, "a": 8.0, "c": 6.0, "g": 6.0, "d": 5.0, "e": 4.0, "new": 1.0,
        }  # fmt: skip
        assert ids(reply) == ["b", "f", "a", "c", "g", "d", "e", "new"]
        assert reply.info.served_by == c.ServedBy(rung="popular")
        # After seven days, trending counts are 1 / e of what they were.
        await on.publish(
            LISTS._replace(newest_us=9 * DAY_US, trained_us=2 * DAY_US, trending_days=7.0)
        )
        reply = await on.service.recommend(TRENDING, RecommendOptions(n=3))
        assert ids(reply) == ["new", "f", "a"]
        assert reply.recommendations[1].hit.score == pytest.approx(9 / math.e)
        assert (await on.ask(TRENDING, 8))[2][0] == ["trending"]


async def test_known_users_get_what_others_visited_too(tmp_path: Path, shared_redis: str) -> None:
    had = {"ann": ("f",), "bob": ("f", "new"), "eve": ("c",)}
    async with trends(tmp_path, shared_redis, had=had) as on:
        await on.publish()
        found, rung, reasons = await on.ask(replace(HOME, user_id="ann"), 5)
        # Popular items follow.
        assert found == ["d", "e", "g", "b", "new"] and rung == ""
        assert reasons == [["because:f"], ["because:f"], ["popular"], ["popular"], ["popular"]]
        # d: 0.2 by f, and 0.9 exp(-1 / 5) by new.
        found, _, reasons = await on.ask(replace(HOME, user_id="bob"), 3)
        assert found == ["d", "a", "e"]
        assert reasons[0] == ["because:new", "because:f"]
        # Nobody else had anything of hers: similar items.
        assert (await on.ask(replace(HOME, user_id="eve"), 2))[1] == "content"


async def test_cached_lists_follow_within_seconds(
    tmp_path: Path, shared_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with trends(tmp_path, shared_redis, had={"ann": ("f",)}, cached=True) as on:
        asked = RecommendOptions(n=2)

        async def first(audience: Audience) -> str:
            return ids(await on.service.recommend(audience, asked))[0]

        await on.publish()
        audiences = [HOME, TRENDING, PAGE, replace(HOME, user_id="ann")]
        expected = ["g", "new", "d", "d"]
        assert [await first(one) for one in audiences] == expected
        lists = LISTS._replace(
            trending=TrendItems(("e",), (1.0,)), popular=TrendItems(("c",), (1.0,))
        )
        other = TrendItems(("b",), (1.0,))
        await on.publish(lists, {"new": other, "f": other})
        # Kept for a moment.
        assert [await first(one) for one in audiences] == expected
        in_six_s = time.time_ns() + 6_000_000_000
        monkeypatch.setattr(time, "time_ns", lambda: in_six_s)
        assert [await first(one) for one in audiences] == ["c", "e", "b", "b"]

"""Histories are read from the shards once, within a bound, and never kept when a shard was away."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from nearline.errors import NotReady
from retrieval.behaviour.item_keys import keys_of
from retrieval.protocols.candidates import HistoryRequest, PackedIds, StoredHistory
from retrieval.recommend.history_cache import HistoryCache
from retrieval.recommend.user_profile import UserProfile
from retrieval.search.request_context import RequestContext
from retrieval.users.records import UserEvent


class Shard:
    """Counts what it is asked. away: Whether it does not answer."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.away = False

    async def history(
        self, snapshot_id: str, request: HistoryRequest, deadline: float | None
    ) -> StoredHistory:
        self.asked.append((snapshot_id, request.user_id))
        if self.away:
            raise NotReady("away")
        ids = PackedIds.of([f"item of {request.user_id}"])
        return StoredHistory(ids, np.array([1]), np.ones(1, np.float32))


def served(shard: Shard, snapshot_id: str = "s1") -> Any:
    return SimpleNamespace(
        name="default",
        snapshot_id=snapshot_id,
        learned=object(),
        local_behaviour=None,
        shards=(shard,),
    )


async def state() -> str:
    return "state"


async def read(cache: HistoryCache, of: object, user: str) -> list[str]:
    result, found = await cache.read_alongside(state(), cast(Any, of), user, RequestContext())
    assert result == "state"
    return list(found.ids)


async def test_a_user_who_comes_back_is_not_read_again_until_the_snapshot_changes() -> None:
    shard, cache = Shard(), HistoryCache()
    for _ in range(3):
        assert await read(cache, served(shard), "ann") == ["item of ann"]
    assert shard.asked == [("s1", "ann")]
    assert await read(cache, served(shard, "s2"), "ann") == ["item of ann"]
    assert shard.asked == [("s1", "ann"), ("s2", "ann")]


async def test_histories_take_bounded_memory_and_those_read_last_stay() -> None:
    # Each takes about 840 bytes.
    shard, cache = Shard(), HistoryCache(max_bytes=100_000)
    for number in range(200):
        await read(cache, served(shard), "ann")
        await read(cache, served(shard), f"user {number}")
    assert shard.asked.count(("s1", "ann")) == 1
    assert len(shard.asked) == 201
    await read(cache, served(shard), "user 199")
    assert len(shard.asked) == 201
    await read(cache, served(shard), "user 0")
    assert len(shard.asked) == 202


async def test_a_history_that_could_not_be_read_is_asked_for_again() -> None:
    shard, cache = Shard(), HistoryCache()
    shard.away = True
    assert await read(cache, served(shard), "ann") == []
    shard.away = False
    assert await read(cache, served(shard), "ann") == ["item of ann"]


@pytest.mark.parametrize("user", ["", "ann"])
async def test_without_a_user_or_a_model_no_shard_is_asked(user: str) -> None:
    shard, cache = Shard(), HistoryCache()
    of = served(shard)
    if user:
        of.learned = None
    assert await read(cache, of, user) == []
    assert shard.asked == []


def test_events_of_a_kind_that_weighs_nothing_shape_no_list() -> None:
    events = [UserEvent(f"i{at}", 10 - at, kind, None) for at, kind in enumerate("abc")]
    profile = UserProfile(events, kind_weights={"a": 0.0, "b": -1.0})
    assert profile.history.weight.tolist() == [1.0]
    assert profile.history.keys.tolist() == keys_of(["i2"]).tolist()
    # They are hidden all the same.
    assert profile.item_ids == {"i0", "i1", "i2"}

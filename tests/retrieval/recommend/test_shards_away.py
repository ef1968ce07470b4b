"""Lists go on while a shard is away: from the other shards, and coverage says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from nearline.contract import Audience, Coverage, RecommendOptions
from nearline.errors import NotReady
from nearline.store.snapshot import shard_of
from retrieval.recommend.service import RecommendationService
from tests.index_builder.behaviour.circular_walks import ITEMS, walks
from tests.retrieval.fakes import FailingShard, SilentShard
from tests.retrieval.recommend.test_filters import recommender

SHARDS = 2
ALL = RecommendOptions(n=ITEMS)
USERS = [walks().users[number] for number in range(20)]
ITEM_PAGE = Audience(item_ids=("i03",), surface="item_page")


def lose(service: RecommendationService, number: int, *, hangs: bool = False) -> None:
    """Replaces a shard by one that does not answer. hangs: Whether calls wait for an answer."""
    (served,) = service.collections.in_force
    shards = list(served.shards)
    shards[number] = SilentShard() if hangs else FailingShard(NotReady("away"))
    served.shards = tuple(shards)


def without(away: int) -> Coverage:
    return Coverage(shards_answered=SHARDS - 1, shards_total=SHARDS, missing_shards=(away,))


def names(reply: object) -> list[str]:
    return [one.hit.id for one in reply.recommendations]  # type: ignore[attr-defined]


@pytest.mark.parametrize("away", range(SHARDS))
async def test_a_list_has_the_items_of_the_other_shards_in_their_order(
    tmp_path: Path, away: int
) -> None:
    async with recommender(tmp_path) as service:
        here = Audience(user_id=next(one for one in USERS if shard_of(one, SHARDS) != away))
        whole = names(await service.recommend(here, ALL))
        shared = names(await service.recommend(ITEM_PAGE, ALL))
        lose(service, away)
        reply = await service.recommend(here, RecommendOptions(n=ITEMS, explain=True))
        expected = [one for one in whole if shard_of(one, SHARDS) != away]
        assert set(names(reply)) == set(expected) and expected
        assert reply.info.coverage == without(away)
        assert all(one.reasons for one in reply.recommendations)
        # A list that everybody shares is still in the cache, with the items of all shards.
        assert names(await service.recommend(ITEM_PAGE, ALL)) == shared


async def test_a_user_whose_history_is_away_gets_popular_items(tmp_path: Path) -> None:
    async with recommender(tmp_path) as service:
        away = 1
        lose(service, away)
        gone = next(user for user in USERS if shard_of(user, SHARDS) == away)
        reply = await service.recommend(Audience(user_id=gone), ALL)
        popular = await service.recommend(Audience(), ALL)
        assert names(reply) == names(popular) != []
        assert reply.info.coverage == without(away)
        assert reply.info.served_by.rung == "popular"


@pytest.mark.parametrize("holds_history", [True, False])
async def test_a_shard_that_hangs_leaves_time_for_the_items_of_the_others(
    tmp_path: Path, holds_history: bool
) -> None:
    async with recommender(tmp_path) as service:
        away = 1
        user = next(one for one in USERS if (shard_of(one, SHARDS) == away) == holds_history)
        # The shared list of popular items is in the cache.
        await service.recommend(Audience(), ALL)
        lose(service, away)
        expected = await service.recommend(Audience(user_id=user), ALL)
        lose(service, away, hangs=True)
        reply = await service.recommend(Audience(user_id=user), ALL, timeout_s=2.0)
        assert names(reply) == names(expected) != []
        assert reply.info.coverage == without(away)

"""Shared lists come from a cache and are personalized afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from nearline import contract as c, wire
from nearline.contract import Audience, RecommendOptions
from nearline.errors import NotReady
from retrieval.behaviour.model import BehaviourModel
from retrieval.cache.tiered_cache import TieredCache
from retrieval.recommend import cached_candidates
from retrieval.recommend.cached_candidates import CandidateCache, list_computation
from retrieval.recommend.candidate_pool import CandidateQuery
from retrieval.recommend.policies import Policies, Policy, default_policies
from retrieval.recommend.service import RecommendationService
from retrieval.rollout.collections import ServedCollections
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext
from tests.retrieval.cache.sample_lists import KEY, Clock, Maker, until_idle
from tests.retrieval.fakes import FailingShard
from tests.retrieval.recommend.small_model import learned
from tests.retrieval.recommend.test_service import GOES, HAD, IDS, POPULARITY, ids, recommender
from tests.retrieval.search.test_search_cache import Followed

PAGE = Audience(item_ids=("a",), surface="item_page")
# The year 2100.
FAR_US = 4_102_444_800_000_000
NEAR = c.ServedBy(source=c.Source.CACHE, reason="near")


@pytest.fixture
def known() -> BehaviourModel:
    return learned(IDS, GOES, POPULARITY, HAD)


@contextlib.asynccontextmanager
async def cached(
    folder: Path, known: BehaviourModel, policies: Policies | None = None
) -> AsyncIterator[tuple[RecommendationService, CandidateCache, ServedCollections]]:
    """Yields a service with a cache, and the collections that it serves."""
    async with recommender(folder, known) as plain:
        collections = plain.collections
        hot = CandidateCache(TieredCache(None), {})
        try:
            chosen = policies or default_policies()
            yield RecommendationService(collections, chosen, cache=hot), hot, collections
        finally:
            await hot.close()


async def test_a_second_request_gets_the_same_list_from_the_cache(
    tmp_path: Path, known: BehaviourModel
) -> None:
    async with cached(tmp_path, known) as (service, _, _):
        first = await service.recommend(PAGE, RecommendOptions(n=4))
        assert first.info.served_by == c.ServedBy()
        again = await service.recommend(replace(PAGE, user_id="bob"), RecommendOptions(n=4))
        assert again.info.served_by == NEAR
        assert ids(again) == ids(first) and ids(first)[:3] == ["b", "c", "d"]
        assert [one.hit.score for one in again.recommendations[:3]] == [5.0, 4.0, 1.0]


@pytest.mark.parametrize("items", [("gone", "a"), ("a", "gone"), ("gone", "a", "gone")])
async def test_of_several_items_the_one_that_exists_decides_which_list_is_read(
    tmp_path: Path, known: BehaviourModel, items: tuple[str, ...]
) -> None:
    async with cached(tmp_path, known) as (service, _, _):
        for served_by in (c.ServedBy(), NEAR):
            about = replace(PAGE, item_ids=items)
            reply = await service.recommend(about, RecommendOptions(n=3))
            assert ids(reply) == ["b", "c", "d"]
            assert [one.id for one in reply.ignored_ids] == ["gone"]
            assert reply.info.served_by == served_by


async def test_items_that_a_user_had_are_left_out_of_a_shared_list(
    tmp_path: Path, known: BehaviourModel
) -> None:
    async with cached(tmp_path, known) as (service, _, _):
        about = Audience(item_ids=("b",), surface="item_page")
        assert ids(await service.recommend(about, RecommendOptions(n=2))) == ["a", "c"]
        ann = await service.recommend(replace(about, user_id="ann"), RecommendOptions(n=3))
        assert ann.info.served_by == NEAR
        assert ids(ann)[0] == "c" and not {"a", "b", "g"} & set(ids(ann))


async def test_other_fields_and_other_policies_have_other_lists(
    tmp_path: Path, known: BehaviourModel
) -> None:
    blocking = Policy(name="item_page", version=1, blocked=frozenset({"b"}))
    policies = Policies([blocking, Policy(name="home", version=1)])
    async with cached(tmp_path, known, policies) as (service, _, _):
        titled = RecommendOptions(n=2, payload=frozenset({c.PayloadField.TITLE}))
        assert ids(await service.recommend(PAGE, titled)) == ["c", "d"]
        home = replace(PAGE, surface="home")
        assert ids(await service.recommend(home, titled)) == ["b", "c"]
        plain = await service.recommend(PAGE, RecommendOptions(n=2))
        assert plain.info.served_by == c.ServedBy()
        assert plain.recommendations[0].hit.title is None
        again = await service.recommend(PAGE, titled)
        assert again.info.served_by == NEAR and again.recommendations[0].hit.title == "C"


async def test_a_list_is_computed_if_too_little_of_the_cached_one_is_left(
    tmp_path: Path, known: BehaviourModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_candidates, "_SHORT", 4)
    async with cached(tmp_path, known) as (service, _, _):
        whole = await service.recommend(PAGE, RecommendOptions(n=2))
        assert ids(whole) == ["b", "c"]
        # The list is b, c, d and one more; two are wanted of it.
        left = await service.recommend(PAGE, RecommendOptions(n=2, exclude_ids=("b", "c")))
        assert left.info.served_by == NEAR and ids(left)[0] == "d"
        none = await service.recommend(PAGE, RecommendOptions(n=2, exclude_ids=("b", "c", "d")))
        assert none.info.served_by == c.ServedBy() and len(ids(none)) == 2
        # What asks for more than half of its length has a longer one.
        assert len(ids(await service.recommend(PAGE, RecommendOptions(n=6)))) == 6


async def test_lists_of_untrained_and_missing_items_are_cached(
    tmp_path: Path, known: BehaviourModel
) -> None:
    async with cached(tmp_path, known) as (service, _, collections):
        (served,) = collections.in_force
        asked = [Audience(item_ids=(one,), surface="item_page") for one in ("new", "zzz")]
        options = RecommendOptions(n=3, payload=frozenset({c.PayloadField.TITLE}))
        first = [await service.recommend(one, options) for one in asked]
        # Nobody is there to be asked again.
        served.shards = tuple(FailingShard(NotReady("away")) for _ in served.shards)
        again = [await service.recommend(one, options) for one in asked]
        for before, after in zip(first, again, strict=True):
            assert after.recommendations == before.recommendations
            assert after.ignored_ids == before.ignored_ids
        like, missing = again
        # The vectors of items turn by one angle from each to the next.
        assert ids(like) == ["g", "f", "e"] and like.recommendations[0].hit.title == "G"
        assert like.info.served_by.rung == "content" and not like.ignored_ids
        assert ids(missing) == ["f", "a", "b"] and missing.info.served_by.rung == "popular"
        assert missing.ignored_ids == [c.IgnoredId("zzz", c.IgnoredReason.NOT_FOUND)]


async def test_similar_items_are_cached_without_a_behaviour_model(
    tmp_path: Path,
) -> None:
    async with cached(tmp_path, cast(Any, None)) as (service, _, collections):
        (served,) = collections.in_force
        first = await service.recommend(PAGE, RecommendOptions(n=3))
        served.shards = tuple(FailingShard(NotReady("away")) for _ in served.shards)
        again = await service.recommend(PAGE, RecommendOptions(n=3, exclude_ids=("b",)))
        assert ids(first) == ["b", "c", "d"] and ids(again) == ["c", "d", "e"]


async def test_a_cached_list_is_the_same_whether_rules_decode_it_or_not(
    tmp_path: Path, known: BehaviourModel
) -> None:
    fields = frozenset({c.PayloadField.TITLE, c.PayloadField.TEXT, c.PayloadField.ATTRIBUTES})
    async with (
        cached(tmp_path, known) as (service, _, _),
        recommender(tmp_path / "plain", known) as plain,
    ):
        for payload in (fields, frozenset[c.PayloadField]()):
            options = RecommendOptions(n=4, payload=payload, exclude_ids=("c",))
            explained = replace(options, explain=True)
            await service.recommend(PAGE, options)
            lists = [
                wire.recommend_reply(
                    wire.recommend_response(await made.recommend(PAGE, asked))
                ).recommendations
                for made, asked in ((service, options), (service, explained), (plain, options))
            ]
            hits = [[one.hit for one in shown] for shown in lists]
            assert hits[0] == hits[1] == hits[2] and len(hits[0]) == 4


@pytest.mark.parametrize(
    ("item_id", "depth", "expires"),
    [("a", 1, 0), ("a", 2, FAR_US + 2), ("a", 3, FAR_US + 1), ("new", 7, FAR_US), ("new", 1, 0)],
)
async def test_a_list_expires_with_the_first_of_its_items(
    tmp_path: Path, known: BehaviourModel, item_id: str, depth: int, expires: int
) -> None:
    # With "a" go b, c and d; like "new" are g, f and so on.
    expiries = {"a": FAR_US, "c": FAR_US + 2, "d": FAR_US + 1}
    async with recommender(tmp_path, known, expires=expiries) as service:
        (served,) = service.collections.in_force
        query = CandidateQuery(served, frozenset(), None, RequestContext())
        listed = await list_computation(query, Policy(name="home", version=1), item_id, depth)()
        assert listed is not None and len(listed.ids) >= depth
        assert listed.expires_us == expires


async def test_an_incomplete_list_is_not_cached(tmp_path: Path, known: BehaviourModel) -> None:
    async with cached(tmp_path, known) as (service, _, collections):
        (served,) = collections.in_force
        whole = served.shards
        served.shards = (FailingShard(NotReady("away")), *whole[1:])
        part = await service.recommend(PAGE, RecommendOptions(n=8))
        assert part.info.coverage.shards_answered == 2
        served.shards = whole
        reply = await service.recommend(PAGE, RecommendOptions(n=7))
        assert reply.info.coverage.shards_answered == 3 and len(ids(reply)) == 7


async def test_a_cached_list_that_may_lack_changes_says_so(
    tmp_path: Path, known: BehaviourModel
) -> None:
    async with cached(tmp_path, known) as (service, _, collections):
        (served,) = collections.in_force
        for shard in served.shards:
            cast(Any, shard).attach(Followed(0, "Redis is away"))
        for source in ("live", "near"):
            reply = await service.recommend(PAGE, RecommendOptions(n=7))
            assert len(ids(reply)) == 7
            assert reply.info.served_by.rung == "stale", source
            assert "Redis is away" in reply.info.served_by.reason
        assert "near" in reply.info.served_by.reason


async def test_lists_are_computed_ahead_for_the_next_snapshot(
    tmp_path: Path, known: BehaviourModel
) -> None:
    async with cached(tmp_path, known) as (service, hot, collections):
        (served,) = collections.in_force
        for audience in (PAGE, Audience(), Audience(item_ids=("d",), surface="item_page")):
            await service.recommend(audience, RecommendOptions(n=2))
        following = renamed(served)
        # Two are asked for with an item, one is what is popular.
        assert await hot.prewarm(following, 10) == 3
        collections.serve(following)
        for audience in (PAGE, Audience()):
            reply = await service.recommend(audience, RecommendOptions(n=2))
            assert reply.info.served_by.source is c.Source.CACHE
            assert reply.info.snapshot_id == following.snapshot_id


async def test_the_forms_of_a_list_that_are_requested_most_are_computed_ahead(
    tmp_path: Path, known: BehaviourModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_candidates, "_MAX_VARIANTS", 1)
    titled = RecommendOptions(n=2, payload=frozenset({c.PayloadField.TITLE}))
    plain = RecommendOptions(n=2)
    async with cached(tmp_path, known) as (service, hot, collections):
        (served,) = collections.in_force
        for options in (titled, plain, plain):
            await service.recommend(PAGE, options)
        following = renamed(served)
        assert await hot.prewarm(following, 10) == 1
        collections.serve(following)
        sources = [
            (await service.recommend(PAGE, one)).info.served_by.source for one in (plain, titled)
        ]
        assert sources == [c.Source.CACHE, c.Source.LIVE]


def renamed(served: ServedCollection) -> ServedCollection:
    """Returns the same collection as another snapshot, whose shards answer under either name."""
    following = copy.copy(served)
    following.shards = cast(Any, tuple(_Renamed(one, served.snapshot_id) for one in served.shards))
    following.snapshot_id = "20990101T000000Z-000000"
    return following


class _Renamed:
    """Asks a shard for the snapshot that it has."""

    def __init__(self, shard: object, snapshot_id: str) -> None:
        self._shard = shard
        self._snapshot_id = snapshot_id

    @property
    def server(self) -> object:
        return self._shard.server  # type: ignore[attr-defined]

    def fetch(self, snapshot_id: str, *arguments: object) -> object:
        return self._shard.fetch(self._snapshot_id, *arguments)  # type: ignore[attr-defined]

    def candidates(self, snapshot_id: str, *arguments: object) -> object:
        return self._shard.candidates(self._snapshot_id, *arguments)  # type: ignore[attr-defined]

    def count(self, snapshot_id: str, *arguments: object) -> object:
        return self._shard.count(self._snapshot_id, *arguments)  # type: ignore[attr-defined]

    def scan(self, snapshot_id: str, *arguments: object) -> object:
        return self._shard.scan(self._snapshot_id, *arguments)  # type: ignore[attr-defined]


async def test_closing_ends_computations_of_the_cache() -> None:
    lists, maker = TieredCache(None), Maker(Clock())
    maker.may.clear()
    waiting = asyncio.ensure_future(lists.get(KEY, maker))
    await until_idle()
    await CandidateCache(lists, {}).close()
    await until_idle()
    assert waiting.done()
    with pytest.raises(NotReady, match="shutting down"):
        await waiting

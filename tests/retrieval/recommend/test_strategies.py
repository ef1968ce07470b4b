"""Strategies: popular, trending and buy-again surfaces, and what each strategy shares."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from nearline import contract as c
from nearline.contract import Audience, Cause, RecommendOptions
from nearline.times import DAY_US
from retrieval.behaviour.model import BehaviourModel
from retrieval.behaviour.tables import REPEAT_DAYS, REPEAT_RATE, TRENDING
from retrieval.protocols.candidates import HistoryRequest
from retrieval.recommend.policies import Origin, Policies, Policy, SeenRule, default_policies
from retrieval.recommend.strategies import (
    AutoStrategy,
    BuyAgainStrategy,
    RankingContext,
    item_of_list,
    strategy_of,
)
from retrieval.recommend.user_profile import UserProfile, build_profile
from retrieval.users.records import UserEvent
from tests.retrieval.recommend.small_model import learned, ranking_query
from tests.retrieval.recommend.test_cached_candidates import NEAR, cached, renamed
from tests.retrieval.recommend.test_service import GOES, HAD, IDS, POPULARITY, ids, recommender

TRENDS = {"d": 5.0, "b": 4.0, "f": 3.0, "a": 2.0}
OF_ITEMS = {
    TRENDING: TRENDS,
    REPEAT_RATE: {"a": 0.5, "b": 0.1, "c": 0.7, "d": 0.2, "e": 0.4, "f": 0.1, "g": 0.9},
    REPEAT_DAYS: {"a": 30.0, "b": 7.0, "c": 7.0},
}
POPULAR_PAGE = Policy(name="top", version=1, origin=Origin.POPULAR)
TRENDING_PAGE = Audience(surface="trending")
AGAIN = Audience(surface="buy_again")


def days_ago(days: float) -> int:
    return time.time_ns() // 1_000 - int(days * DAY_US)


@pytest.fixture
def known() -> BehaviourModel:
    bob = [("a", days_ago(2)), ("c", days_ago(6)), ("b", days_ago(8)), ("b", days_ago(20))]
    had = {**HAD, "bob": [*bob, ("f", days_ago(60))]}
    return learned(IDS, GOES, POPULARITY, had, of_items=OF_ITEMS)


async def test_trending_lists_are_shared_except_for_items_that_a_user_had(
    tmp_path: Path, known: BehaviourModel
) -> None:
    async with cached(tmp_path, known) as (service, _, _):
        first = await service.recommend(TRENDING_PAGE, RecommendOptions(n=5))
        # What does not trend comes after what does, the more popular before the less.
        assert ids(first) == ["d", "b", "f", "a", "c"]
        assert [one.hit.score for one in first.recommendations[:4]] == [5, 4, 3, 2]
        assert first.info.served_by == c.ServedBy()
        # Neither a user whom nobody knows nor one who is known is served something else instead.
        nobody = Audience(surface="trending", user_id="nobody")
        ann = Audience(surface="trending", user_id="ann")
        for audience, expected in ((nobody, ["d", "b", "f"]), (ann, ["d", "b", "f"])):
            reply = await service.recommend(audience, RecommendOptions(n=3))
            assert (ids(reply), reply.info.served_by) == (expected, NEAR)
        # Ann had "a" and "g", which many users have again; bob had "b" and "f", which few do.
        assert ids(await service.recommend(ann, RecommendOptions(n=4))) == ["d", "b", "f", "a"]
        bob = Audience(surface="trending", user_id="bob")
        reply = await service.recommend(bob, RecommendOptions(n=4, why_not_id="b"))
        assert ids(reply) == ["d", "a", "c", "e"]
        assert reply.why_not is not None and reply.why_not.cause is Cause.SEEN


async def test_items_of_the_request_are_excluded_from_trending_lists_and_otherwise_ignored(
    tmp_path: Path, known: BehaviourModel
) -> None:
    about = Audience(surface="trending", item_ids=("b", "zzz"))
    options = RecommendOptions(n=3, explain=True, why_not_id="c")
    for make in (recommender, cached):
        async with make(tmp_path / make.__name__, known) as made:
            service = made[0] if isinstance(made, tuple) else made
            reply = await service.recommend(about, options)
            assert ids(reply) == ["d", "f", "a"]
            assert {one.reasons for one in reply.recommendations} == {("trending",)}
            assert [one.id for one in reply.ignored_ids] == ["zzz"]
            assert reply.info.served_by == c.ServedBy()
            # After d, b, f and a.
            assert reply.why_not is not None
            assert (reply.why_not.cause, reply.why_not.rank) == (Cause.OUTRANKED, 5)
            assert reply.why_not.message == "it ranks 5, below the end of the list"


async def test_a_popular_surface_is_not_a_fallback(tmp_path: Path, known: BehaviourModel) -> None:
    policies = default_policies().merged_with([POPULAR_PAGE])
    async with cached(tmp_path, known, policies) as (service, _, _):
        for user in ("", "nobody", "ann"):
            audience = Audience(surface="top", user_id=user)
            reply = await service.recommend(audience, RecommendOptions(n=3, explain=True))
            assert ids(reply) == ["f", "a", "b"]  # Ann had "a", which many users have again.
            assert reply.info.served_by == (NEAR if user else c.ServedBy())
            assert reply.recommendations[0].reasons == ("popular",)
        # Home has the same for who is not known, and says that it is for want of better.
        home = await service.recommend(Audience(user_id="nobody"), RecommendOptions(n=3))
        assert ids(home) == ["f", "a", "b"] and home.info.served_by.rung == "popular"
        assert home.info.served_by.source is c.Source.FALLBACK


async def test_buy_again_lists_items_that_the_user_had_due_ones_first(
    tmp_path: Path, known: BehaviourModel
) -> None:
    async with cached(tmp_path, known) as (service, _, _):
        bob = Audience(surface="buy_again", user_id="bob", item_ids=("e",))
        options = RecommendOptions(n=6, explain=True, why_not_id="e")
        reply = await service.recommend(bob, options)
        # b was due a day ago, c is due tomorrow; when f is due nobody knows, and it was bought four
        # visits before a, which is due in four weeks. Nothing else was ever bought.
        assert ids(reply) == ["b", "c", "f", "a"]
        reasons = [one.reasons for one in reply.recommendations]
        assert reasons == [("again", "due"), ("again",), ("again",), ("again",)]
        assert reply.info.served_by == c.ServedBy()
        assert reply.why_not is not None and reply.why_not.cause is Cause.EXCLUDED


async def test_a_user_without_purchases_gets_items_that_many_buy_again(
    tmp_path: Path, known: BehaviourModel
) -> None:
    async with cached(tmp_path, known) as (service, _, _):
        # Popularity times rate: c 4.2, a 4, e 1.6, d 1.
        reply = await service.recommend(AGAIN, RecommendOptions(n=4))
        assert ids(reply) == ["c", "a", "e", "d"]
        assert reply.info.served_by == c.ServedBy(rung="popular")
        nobody = await service.recommend(
            Audience(surface="buy_again", user_id="nobody"), RecommendOptions(n=4)
        )
        assert ids(nobody) == ids(reply)
        assert nobody.info.served_by.source is c.Source.FALLBACK
        assert nobody.info.served_by.rung == "popular"


async def test_recent_purchases_may_be_hidden(tmp_path: Path, known: BehaviourModel) -> None:
    rail = Policy(name="rail", version=1, origin=Origin.BUY_AGAIN, seen=SeenRule(days=7))
    async with recommender(tmp_path, known, Policies([rail])) as service:
        reply = await service.recommend(Audience(surface="rail", user_id="bob"))
        assert ids(reply) == ["b", "f"]


async def test_an_older_snapshot_falls_back_to_popularity(tmp_path: Path) -> None:
    async with recommender(tmp_path, learned(IDS, GOES, POPULARITY, HAD)) as service:
        for audience in (TRENDING_PAGE, AGAIN):
            assert ids(await service.recommend(audience, RecommendOptions(n=3))) == ["f", "a", "b"]
        ann = Audience(surface="buy_again", user_id="ann")
        assert ids(await service.recommend(ann)) == ["a", "g"]


async def test_a_snapshot_without_interactions_is_unordered(tmp_path: Path) -> None:
    async with recommender(tmp_path, None) as service:
        for audience in (TRENDING_PAGE, AGAIN):
            reply = await service.recommend(audience, RecommendOptions(n=3))
            assert reply.info.served_by.rung == "unordered"


async def test_lists_of_different_strategies_are_cached_separately(
    tmp_path: Path, known: BehaviourModel
) -> None:
    policies = default_policies().merged_with([POPULAR_PAGE])
    audiences = [Audience(surface=one) for one in ("home", "top", "trending", "buy_again")]
    page = Audience(item_ids=("a",), surface="item_page")
    async with cached(tmp_path, known, policies) as (service, hot, collections):
        lists = [ids(await service.recommend(one, RecommendOptions(n=3))) for one in audiences]
        assert lists == [["f", "a", "b"], ["f", "a", "b"], ["d", "b", "f"], ["c", "a", "e"]]
        await service.recommend(page, RecommendOptions(n=3))
        (served,) = collections.in_force
        following = renamed(served)
        # Home and item_page are alike, but in what they go with; no list is made for a surface
        # that would not ask for it.
        assert await hot.prewarm(following, 10) == 5
        collections.serve(following)
        for audience, expected in zip(audiences, lists, strict=True):
            reply = await service.recommend(audience, RecommendOptions(n=3))
            assert ids(reply) == expected
            assert reply.info.served_by.source is c.Source.CACHE


@pytest.mark.parametrize(
    ("origin", "item_ids", "is_known", "is_shared", "name", "source"),
    [
        (Origin.AUTO, ["a"], True, True, "item:a", "items"),
        (Origin.AUTO, ["a", "b"], False, False, None, None),
        (Origin.AUTO, [], False, True, "popular", "popular"),
        (Origin.AUTO, [], True, False, None, None),
        (Origin.POPULAR, [], True, True, "popular", "surface"),
        (Origin.TRENDING, [], True, True, "trending", "surface"),
        (Origin.BUY_AGAIN, [], False, True, "buy_again", "popular"),
        (Origin.BUY_AGAIN, [], True, False, None, None),
    ],
)
def test_shared_lists_have_a_name_and_a_source(
    origin: Origin,
    item_ids: list[str],
    is_known: bool,
    is_shared: bool,
    name: str | None,
    source: str | None,
) -> None:
    strategy = strategy_of(Policy(name="any", version=1, origin=origin))
    assert strategy.is_shared(item_ids, is_known=is_known) == is_shared
    assert strategy.uses_items == (origin is Origin.AUTO)
    if is_shared:
        item_id = "".join(item_ids)
        assert strategy.list_name(item_id) == name
        assert strategy.shared_source(item_id) == source
        assert item_of_list(strategy.list_name(item_id)) == item_id


@pytest.mark.parametrize(
    ("item_ids", "user_id", "expected"),
    [
        (["a", "new"], "", False),
        (["new"], "ann", True),
        ([], "ann", False),
        ([], "", False),
    ],
)
async def test_vectors_are_needed_only_if_no_item_of_the_context_was_trained(
    known: BehaviourModel, item_ids: list[str], user_id: str, expected: bool
) -> None:
    assert known.local is not None
    trained = known.local.history(HistoryRequest(user_id))
    context = RankingContext(item_ids, build_profile(trained=trained), repeats=False, now_us=0)
    query = ranking_query(known, history=context.profile.history)
    assert (await AutoStrategy().rank(query, context) is None) == expected
    untrained = UserProfile([UserEvent("elsewhere", 1, "view", None)])
    elsewhere = RankingContext([], untrained, repeats=False, now_us=0)
    query = ranking_query(known, history=untrained.history)
    assert await AutoStrategy().rank(query, elsewhere) is None
    assert await BuyAgainStrategy().rank(query, elsewhere) is not None


def test_every_origin_has_a_strategy() -> None:
    assert len({type(strategy_of(Policy(name="a", version=1, origin=one))) for one in Origin}) == 4

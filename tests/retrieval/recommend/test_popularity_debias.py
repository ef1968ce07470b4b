"""The discount for popularity in served lists: where it applies, and what explanations say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from nearline import contract as c
from nearline.contract import Audience, Cause, RecommendOptions
from retrieval.behaviour.model import BehaviourModel
from retrieval.behaviour.popularity_discount import WINDOW
from retrieval.recommend.policies import Policies, Policy
from retrieval.recommend.ranking import rank_by_items
from tests.retrieval.recommend.small_model import learned, ranking_query
from tests.retrieval.recommend.test_cached_candidates import cached
from tests.retrieval.recommend.test_service import IDS, ids, recommender

# "a" is a niche item. Everybody had "f", so it goes with "a" a little better than "b" does.
GOES = {"a": {"f": 5.0, "b": 4.9, "c": 4.8, "d": 1.0}, "g": {"f": 5.0, "b": 4.5, "d": 2.0}}
POPULARITY = {"a": 3.0, "b": 2.0, "c": 4.0, "d": 3.0, "e": 2.0, "f": 5_000.0, "g": 2.0}
HAD = {"ann": [("a", 1_000_000)]}
PAGE = Audience(item_ids=("a",), surface="item_page")


@pytest.fixture
def known() -> BehaviourModel:
    return learned(IDS, GOES, POPULARITY, HAD)


def asked(debias: float | None, **options: object) -> RecommendOptions:
    return RecommendOptions(n=3, popularity_debias=debias, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("audience", [PAGE, Audience(item_ids=("a", "g")), Audience(user_id="ann")])
async def test_an_item_that_everybody_has_no_longer_tops_the_list(
    tmp_path: Path, known: BehaviourModel, audience: Audience
) -> None:
    async with recommender(tmp_path, known) as service:
        for plain in (None, 0.0):
            assert ids(await service.recommend(audience, asked(plain)))[:2] == ["f", "b"]
        reply = await service.recommend(audience, asked(1.0))
        assert ids(reply)[0] == "b"
        longer = await service.recommend(audience, replace(asked(1.0), n=8))
        assert ids(longer)[:3] == ids(reply)
        scores = [one.hit.score for one in longer.recommendations]
        assert scores == sorted(scores, reverse=True)


async def test_request_precedes_policy_and_policy_precedes_snapshot(
    tmp_path: Path, known: BehaviourModel
) -> None:
    known = replace(known, similar_debias=1.0)
    policies = Policies(
        [
            Policy(name="item_page", version=1),
            Policy(name="hits", version=1, popularity_debias=0.0),
        ]
    )
    hits = Audience(item_ids=("a",), surface="hits")
    async with recommender(tmp_path, known, policies) as service:
        assert ids(await service.recommend(PAGE, asked(None)))[0] == "b"
        assert ids(await service.recommend(PAGE, asked(0.0)))[0] == "f"
        assert ids(await service.recommend(hits, asked(None)))[0] == "f"
        assert ids(await service.recommend(hits, asked(1.0)))[0] == "b"


async def test_lists_of_users_and_of_items_have_their_own_default(
    tmp_path: Path, known: BehaviourModel
) -> None:
    known = replace(known, _debias=MappingProxyType({False: 1.0, True: 0.0}))
    async with recommender(tmp_path, known) as service:
        assert ids(await service.recommend(Audience(user_id="ann"), asked(None)))[0] == "b"
        assert ids(await service.recommend(PAGE, asked(None)))[0] == "f"


async def test_popular_lists_are_not_discounted(tmp_path: Path, known: BehaviourModel) -> None:
    known = replace(known, _debias=MappingProxyType({False: 1.0, True: 1.0}))
    async with recommender(tmp_path, known) as service:
        for surface in ("home", "trending", "buy_again"):
            audience = Audience(surface=surface)
            reply = await service.recommend(audience, asked(1.0, explain=True))
            plain = await service.recommend(audience, asked(0.0, explain=True))
            assert reply.recommendations == plain.recommendations
            assert ids(reply)[0] == "f"


async def test_a_cached_list_has_the_discount_that_is_asked_for(
    tmp_path: Path, known: BehaviourModel
) -> None:
    async with cached(tmp_path, known) as (service, hot, collections):
        for debias in (None, 1.0, 0.0, 1.0, None):
            reply = await service.recommend(PAGE, asked(debias))
            assert ids(reply)[0] == ("b" if debias else "f")
        again = await service.recommend(PAGE, asked(1.0))
        assert again.info.served_by.source is c.Source.CACHE
        assert again.recommendations == (await service.recommend(PAGE, asked(1.0))).recommendations
        # What a single request asks for is not computed ahead.
        (served,) = collections.in_force
        assert await hot.prewarm(served, 10) == 1


async def test_explanations_name_the_discount_where_it_applied(
    tmp_path: Path, known: BehaviourModel
) -> None:
    async with cached(tmp_path, known) as (service, _, _):
        for _ in range(2):  # Computed, then from the cache.
            reply = await service.recommend(PAGE, asked(1.0, explain=True))
            reasons = {one.hit.id: one.reasons for one in reply.recommendations}
            assert ids(reply) == ["b", "c", "d"]
            assert set(reasons.values()) == {("because:a", "debiased")}
        reply = await service.recommend(PAGE, asked(0.0, explain=True))
        assert {one.reasons for one in reply.recommendations} == {("because:a",)}
        why = (await service.recommend(PAGE, asked(1.0, why_not_id="f"))).why_not
        assert why is not None and (why.cause, why.rank) == (Cause.OUTRANKED, 4)
        assert why.message.endswith(
            "; popularity_debias moved it down by 3 places, below rarer items"
        )
        why = (await service.recommend(PAGE, asked(0.0, why_not_id="d"))).why_not
        assert why is not None and (why.cause, why.rank) == (Cause.OUTRANKED, 4)
        assert "popularity_debias" not in why.message


async def test_the_order_does_not_depend_on_the_length_of_the_list() -> None:
    count = WINDOW + 60
    names = [f"i{number:03d}" for number in range(count)]
    rng = np.random.default_rng(4)
    goes = {
        source: dict(zip(names[2:], rng.random(count - 2).tolist(), strict=True))
        for source in names[:2]
    }
    popularity = dict(zip(names, rng.integers(1, 500, count).astype(float).tolist(), strict=True))
    known = learned(names, goes, popularity)
    orders = []
    for first in (1, 10, WINDOW, count):
        ranking = await rank_by_items(ranking_query(known, first), names[:2], 0.5)
        assert ranking is not None
        orders.append([one async for block in ranking.blocks() for one in block.ids])
    assert all(order == orders[0] for order in orders)
    assert sorted(orders[0]) == names

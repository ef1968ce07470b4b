"""Surfaces with a filter of their own, and popularity within a category."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index_builder.interactions.records import Interactions
from nearline import contract as c
from nearline.contract import Audience, Cause, RecommendOptions
from nearline.errors import InvalidRequest
from nearline.filters import Equals, In
from nearline.times import DAY_US
from retrieval.cache.tiered_cache import TieredCache
from retrieval.recommend.cached_candidates import CandidateCache
from retrieval.recommend.policies import Origin, Policies, Policy, SeenRule, default_policies
from retrieval.recommend.service import RecommendationService
from tests.index_builder.behaviour.circular_walks import ITEMS
from tests.retrieval.recommend.test_cached_candidates import renamed
from tests.retrieval.recommend.test_filters import recommender

EVEN = Equals("even", True)
CACHED = c.ServedBy(source=c.Source.CACHE, reason="near")
CATEGORIES = ("books", "games", "music")


def ids(reply: c.RecommendReply) -> list[str]:
    return [one.hit.id for one in reply.recommendations]


def only_even(**changes: object) -> Policies:
    """Returns policies of which each shows items of even numbers only."""
    plain = default_policies()
    return Policies(
        replace(plain.for_surface(name), only=EVEN, **changes)  # type: ignore[arg-type]
        for name in plain.surfaces
    )


async def test_the_filter_of_a_surface_applies_to_every_source(
    tmp_path: Path,
) -> None:
    audiences = [
        Audience(surface="trending"),
        Audience(surface="buy_again", user_id="u001"),
        Audience(),
        Audience(user_id="u001"),
        Audience(item_ids=("i03",), surface="item_page"),
        Audience(item_ids=("i03", "i06"), surface="cart"),
    ]
    async with recommender(tmp_path / "plain") as service:
        every = [ids(await service.recommend(one, RecommendOptions(n=ITEMS))) for one in audiences]
    async with recommender(tmp_path / "only", only_even(pinned=("i03", "i08"))) as service:
        for audience, everything in zip(audiences, every, strict=True):
            wanted = [one for one in everything if int(one[1:]) % 2 == 0]
            pinned = [one for one in ("i08",) if one in wanted]
            wanted = [*pinned, *(one for one in wanted if one not in pinned)]
            for _ in range(2):
                reply = await service.recommend(audience, RecommendOptions(n=ITEMS))
                # Pinned are also items that are not among the candidates: who never had it.
                assert [one for one in ids(reply) if one in wanted] == wanted
                assert set(ids(reply)) <= {*wanted, "i08"}
            # What the request asks for, too, narrows it further.
            both = RecommendOptions(n=ITEMS, filter=In("name", (wanted[-1], "i05", "i03")))
            assert ids(await service.recommend(audience, both)) == [wanted[-1]]


async def test_filtered_lists_are_cached_and_why_not_names_the_filter(
    tmp_path: Path,
) -> None:
    async with recommender(tmp_path, only_even()) as service:
        audience = Audience(surface="trending")
        first = await service.recommend(audience, RecommendOptions(n=3))
        again = await service.recommend(audience, RecommendOptions(n=3))
        assert ids(again) == ids(first) and again.info.served_by == CACHED
        # What is explained is the list that is given, from the cache or not.
        asked = RecommendOptions(n=3, why_not_id="i05")
        again = await service.recommend(audience, asked)
        assert ids(again) == ids(first) and again.info.served_by == CACHED
        assert again.why_not is not None and again.why_not.cause is Cause.FILTERED
        assert again.why_not.message == (
            f"it does not match the filter of policy {again.policy} (only)"
        )
        both = replace(asked, filter=Equals("name", "i05"))
        why = (await service.recommend(audience, both)).why_not
        assert why is not None and why.message.endswith("of policy " + again.policy + " (only)")


async def test_an_attribute_that_the_collection_lacks_is_named(tmp_path: Path) -> None:
    policies = Policies([Policy(name="home", version=1, only=Equals("in_stock", True))])
    async with recommender(tmp_path, policies) as service:
        # Who sent no filter is told whose it is.
        says = r"policy home/1/\w+ \(only\): .*'in_stock'.* correct it in the policy file"
        with pytest.raises(InvalidRequest, match=says) as refused:
            await service.recommend(Audience())
        assert refused.value.field == "surface"
        asked = RecommendOptions(filter=EVEN)
        with pytest.raises(InvalidRequest, match=r"'in_stock'.* has a filter, too") as refused:
            await service.recommend(Audience(), asked)
        assert refused.value.field == "options.filter"


def events(rng: np.random.Generator, items: int = 40, count: int = 3_000) -> Interactions:
    """Returns interactions of few users with items that differ in popularity and in their days."""
    item = np.sort(rng.zipf(1.3, 2 * count) - 1)
    item = rng.permutation(item[item < items])
    day = rng.integers(0, 60, len(item))
    return Interactions(
        [f"u{number:02}" for number in range(12)],
        [f"i{number:02}" for number in range(items)],
        rng.integers(0, 12, len(item)).astype(np.int32),
        item.astype(np.int32),
        (day * DAY_US).astype(np.int64),
        rng.integers(1, 4, len(item)).astype(np.float32),
    )


async def test_a_filter_on_a_category_lists_its_items_by_their_counts(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    rows = events(rng)
    places = rng.integers(0, len(CATEGORIES), len(rows.items))
    items = [
        c.Item(
            id=one,
            vector=rng.normal(size=4).astype(np.float32),
            attributes={"category": CATEGORIES[place]},
        )
        for one, place in zip(rows.items, places.tolist(), strict=True)
    ]
    repeat = SeenRule(repeat=True)
    top = Policy(name="top", version=1, origin=Origin.POPULAR, seen=repeat)
    trends = Policy(name="trends", version=1, origin=Origin.TRENDING, seen=repeat)
    decay = np.exp(-(rows.time_us.max() - rows.time_us) / (7 * DAY_US))
    weights = {"top": rows.weight, "trends": rows.weight * decay}
    async with recommender(tmp_path, Policies([top, trends]), items, rows) as service:
        for surface, weight in weights.items():
            for at, category in enumerate(CATEGORIES):
                counts: dict[str, float] = {}
                for number, one in zip(rows.item.tolist(), weight.tolist(), strict=True):
                    if places[number] == at:
                        name = rows.items[number]
                        counts[name] = counts.get(name, 0.0) + one
                expected = sorted(counts, key=lambda one: (-np.float32(counts[one]), one))
                options = RecommendOptions(n=10, filter=Equals("category", category))
                for user in ("", "u03"):
                    audience = Audience(surface=surface, user_id=user)
                    reply = await service.recommend(audience, options)
                    assert ids(reply) == expected[:10]
                    scores = [one.hit.score for one in reply.recommendations]
                    assert scores == pytest.approx([counts[one] for one in expected[:10]])
                assert reply.info.served_by == CACHED


async def test_filtered_lists_are_computed_ahead_for_the_next_snapshot(tmp_path: Path) -> None:
    policies = only_even()
    async with recommender(tmp_path, policies) as plain:
        collections, hot = (
            plain.collections,
            CandidateCache(TieredCache(None), {}),
        )
        service = RecommendationService(collections, policies, cache=hot)
        try:
            page = Audience(item_ids=("i03",), surface="item_page")
            asked = [
                (Audience(surface="trending"), None),
                (page, None),
                (page, Equals("name", "i04")),
            ]
            lists = []
            for audience, condition in asked:
                options = RecommendOptions(n=3, filter=condition)
                lists.append(ids(await service.recommend(audience, options)))
            (served,) = collections.in_force
            following = renamed(served)
            # A list under the filter of a request is nothing that others will ask for.
            assert await hot.prewarm(following, 10) == 2
            collections.serve(following)
            for (audience, _), expected in zip(asked[:2], lists, strict=False):
                reply = await service.recommend(audience, RecommendOptions(n=3))
                assert ids(reply) == expected
                assert reply.info.served_by == CACHED
        finally:
            await hot.close()

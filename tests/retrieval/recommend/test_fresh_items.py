"""Lists of a shop without interactions, and places of new items in lists."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from nearline.contract import Audience, Item, RecommendOptions
from nearline.filters import Equals
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.model import BehaviourModel
from retrieval.recommend.policies import FreshRule, Policies, Policy
from retrieval.recommend.service import RecommendationService
from tests.index_builder.behaviour.circular_walks import ITEMS, documents
from tests.retrieval.recommend.served_lists import served_lists
from tests.retrieval.recommend.small_model import learned
from tests.retrieval.recommend.test_filters import recommender
from tests.retrieval.small_snapshots import Document, write_snapshot

# Four categories of fifty items each; items of one category differ by a hair.
CATEGORIES = {"hats", "mugs", "pens", "socks"}
IDS = [f"{category}-{number:02}" for category in sorted(CATEGORIES) for number in range(50)]
KIND = snapshot_pb2.AttributeField.Kind
FIELDS = [
    snapshot_pb2.AttributeField(name="category", kind=KIND.KIND_STRING),
    snapshot_pb2.AttributeField(name="released", kind=KIND.KIND_TIME),
]


@contextlib.asynccontextmanager
async def shop(
    folder: Path,
    newest: Sequence[str] = (),
    known: BehaviourModel | None = None,
    home: Policy | None = None,
) -> AsyncIterator[RecommendationService]:
    """Yields a service. newest: Items that changed last; without any, mugs are the youngest."""
    rng = np.random.default_rng(0)
    documents = []
    for at, one in enumerate(IDS):
        category, number = one.split("-")
        vector = np.eye(4, dtype=np.float32)[at // 50] + rng.normal(0, 0.01, 4).astype(np.float32)
        day = f"{2020 if category == 'mugs' else 2000}-01-{1 + int(number) % 28:02}"
        released = {"$time": f"{day}T00:00:00+00:00"}
        attributes: dict[str, object] = {"category": category, "released": released}
        documents.append(Document(id=one, vectors=vector[None], attributes=attributes))
    write_snapshot(folder, documents, shards=2, fields=FIELDS)
    policies = None if home is None else Policies([home])
    first = lambda most: list(newest)[:most]  # noqa: E731
    async with served_lists(Store(folder), policies, known, newest=first) as service:
        yield service


async def first_list(service: RecommendationService, n: int = 8, **options: object) -> list[str]:
    reply = await service.recommend(Audience(), RecommendOptions(n=n, **options))  # type: ignore[arg-type]
    assert reply.info.served_by is not None and reply.info.served_by.rung == "unordered"
    return [one.hit.id for one in reply.recommendations]


def categories(ids: Sequence[str]) -> list[str]:
    return [one.split("-")[0] for one in ids]


async def test_an_import_by_category_gives_a_list_of_all_categories(tmp_path: Path) -> None:
    async with shop(tmp_path, ["gone", *reversed(IDS)]) as service:
        found = await first_list(service)
        # The last item of the import is the newest. By id, hats would fill the list.
        assert found[0] == "socks-49" and set(categories(found[:4])) == CATEGORIES
        assert await first_list(service) == found
        assert len(set(await first_list(service, 200))) == 200


async def test_the_first_list_is_read_from_the_cache(tmp_path: Path) -> None:
    async with shop(tmp_path, IDS) as service:
        found = await first_list(service)
        (served,) = service.collections.in_force
        served.shards = ()  # Without any, nothing can be read.
        assert await first_list(service) == found


async def test_new_items_come_before_a_thousand_others_that_differ_as_much(tmp_path: Path) -> None:
    async with shop(tmp_path, ["hats-07", "hats-08", "pens-03"]) as service:
        found = await first_list(service, 4)
        assert found[:2] == ["hats-07", "pens-03"] and set(categories(found)) == CATEGORIES


async def test_a_time_attribute_says_what_is_new_if_nothing_changed(tmp_path: Path) -> None:
    async with shop(tmp_path) as service:
        found = await first_list(service)
        # Released on the 28th.
        assert found[0] == "mugs-27" and set(categories(found)) == CATEGORIES
        found = await first_list(service, 5, filter=Equals("category", "pens"))
        assert set(categories(found)) == {"pens"} and found[0] == "pens-27"


AUDIENCES = (Audience(user_id="u001"), Audience(item_ids=("i03",)), Audience())


@pytest.mark.parametrize("audience", AUDIENCES, ids=["user", "item", "anybody"])
async def test_the_best_new_item_has_its_place_though_all_others_rank_before_it(
    tmp_path: Path, audience: Audience
) -> None:
    now, rng = datetime.now(UTC), np.random.default_rng(0)
    items = [
        Item(
            id=one,
            vector=rng.normal(size=ITEMS).astype(np.float32),
            # After the twelve with interactions: four old ones, and eight of today.
            attributes={"released": now - timedelta(days=0 if at >= 16 else 90)},
        )
        for at, one in enumerate(documents(24))
    ]
    rule = Policy(name="home", version=1, fresh=FreshRule("released", 30, 2), candidates=3)
    plain = replace(rule, fresh=None)
    lists = {}
    for policy in (plain, rule):
        async with recommender(tmp_path / policy.digest, Policies([policy]), items) as service:
            for n in (3, 24):
                reply = await service.recommend(audience, RecommendOptions(n=n))
                lists[policy, n] = [one.hit.id for one in reply.recommendations]
    best = [one for one in lists[plain, 24] if one >= "i16"]
    assert len(best) == 8 and not set(best) & set(lists[plain, 3])
    first, *last = lists[rule, 3]
    assert first == lists[plain, 3][0] and len(set(last) & set(best)) == 2
    if audience != Audience():  # Nobody has had any of them, so all are equally popular.
        assert last == best[:2]


async def test_an_item_added_since_the_models_were_built_has_such_a_place(tmp_path: Path) -> None:
    ids = [one for one in IDS if not one.startswith("mugs")]
    known = learned(ids, {}, {one: 1.0 for one in ids}, {"ann": [("pens-00", 1)]})
    since_2010 = (datetime.now(UTC) - datetime(2010, 1, 1, tzinfo=UTC)).days
    policy = Policy(name="home", version=1, fresh=FreshRule("released", since_2010, 2))
    for fresh in (policy, replace(policy, fresh=None)):
        async with shop(tmp_path, ["mugs-07", "pens-01", "mugs-03"], known, fresh) as service:
            for audience in (Audience(), Audience(user_id="ann"), Audience(item_ids=("hats-01",))):
                reply = await service.recommend(audience, RecommendOptions(n=5))
                mugs = [
                    one.hit.id for one in reply.recommendations if one.hit.id.startswith("mugs")
                ]
                assert mugs == (["mugs-07", "mugs-03"] if fresh.fresh else [])


async def test_items_of_the_snapshot_and_later_ones_take_turns(tmp_path: Path) -> None:
    later = ["mugs-48", "mugs-49"]
    ids = [one for one in IDS if one not in later]
    popular = {one: 1.0 for one in ids if not one.startswith("mugs")}
    known = learned(ids, {}, popular, {"ann": [("pens-00", 1)]})
    days = (datetime.now(UTC) - datetime(2010, 1, 1, tzinfo=UTC)).days
    home = Policy(name="home", version=1, fresh=FreshRule("released", days, 3), candidates=50)
    async with shop(tmp_path, later, known, home) as service:
        reply = await service.recommend(Audience(user_id="ann"), RecommendOptions(n=10))
    found = [one.hit.id for one in reply.recommendations]
    assert [one.startswith("mugs") for one in found] == [False] * 7 + [True] * 3
    assert [one in later for one in found[7:]] == [False, True, False]
    assert found[8] == "mugs-48"
    scores = [one.hit.score for one in reply.recommendations]
    assert scores == sorted(scores, reverse=True)


async def test_a_rule_about_new_items_that_cannot_work_says_so(tmp_path: Path) -> None:
    for attribute, found in (("category", "is of kind string"), ("nope", "does not exist")):
        home = Policy(name="home", version=1, fresh=FreshRule(attribute, 30, 2))
        async with shop(tmp_path / attribute, home=home) as service:
            reply = await service.recommend(Audience(), RecommendOptions(n=3, explain=True))
        assert f"fresh does nothing: attribute {attribute!r} {found}; it must hold times" in (
            reply.story
        )

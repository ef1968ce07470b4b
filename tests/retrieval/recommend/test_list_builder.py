"""The plan of a list, and the use of cached lists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from nearline.contract import Audience, PayloadField, RecommendOptions
from nearline.filters import All, Equals
from retrieval.cache.cached_list import CachedList, CacheLevel
from retrieval.recommend import list_builder
from retrieval.recommend.cached_candidates import CachedCandidates
from retrieval.recommend.list_builder import ListBuilder, ListPlan, ListRequest, plan_list
from retrieval.recommend.policies import ExploreRule, Origin, Policy, Quota
from retrieval.recommend.user_profile import UserProfile
from retrieval.search import item_lookup
from retrieval.search.request_context import RequestContext
from retrieval.users.records import UserEvent
from tests.retrieval.recommend.small_model import learned
from tests.retrieval.recommend.test_service import GOES, IDS, POPULARITY, recommender

PLAIN = Policy(name="home", version=1)
RED = Equals("colour", "red")
IN_STOCK = Equals("stock", True)


def plan(policy: Policy = PLAIN, audience: Audience | None = None, **options: Any) -> ListPlan:
    request = ListRequest(
        audience=audience or Audience(), options=RecommendOptions(**options), policy=policy
    )
    return plan_list(cast(Any, SimpleNamespace(attribute_kinds={})), request, RequestContext())


def test_items_of_the_request_are_excluded_and_kept_once() -> None:
    made = plan(audience=Audience(item_ids=("b", "a", "b")), exclude_ids=("c",))
    assert made.item_ids == made.context_ids == ["b", "a"]
    assert made.excluded == {"a", "b", "c"}
    trending = Policy(name="top", version=1, origin=Origin.TRENDING)
    made = plan(trending, Audience(item_ids=("a",)))
    assert made.item_ids == ["a"] and not made.context_ids
    assert made.excluded == {"a"}


@pytest.mark.parametrize(
    ("policy", "options", "depth", "verbatim"),
    [
        (PLAIN, {}, 7, True),
        (PLAIN, {"explain": True}, 7, False),
        (PLAIN, {"why_not_id": "a"}, 7, False),
        (PLAIN, {"diversity": 0.5}, 200, False),
        (Policy(name="home", version=1, pinned=("a",)), {}, 7, False),
        (Policy(name="home", version=1, quotas=(Quota("brand", 1),), candidates=50), {}, 50, False),
        (Policy(name="home", version=1, explore=ExploreRule(1, 2), candidates=3), {}, 7, False),
    ],
)
def test_only_rules_that_reorder_need_more_candidates_than_are_listed(
    policy: Policy, options: dict[str, Any], depth: int, verbatim: bool
) -> None:
    made = plan(policy, n=7, **options)
    assert (made.depth, made.verbatim) == (depth, verbatim)


def test_candidates_are_read_with_the_fields_of_caller_and_rules_under_both_filters() -> None:
    policy = Policy(name="home", version=1, quotas=(Quota("brand", 1),), only=IN_STOCK)
    made = plan(policy, payload=frozenset({PayloadField.TITLE}), filter=RED)
    assert made.query.payload == {PayloadField.TITLE, PayloadField.ATTRIBUTES}
    assert made.query.filter == All(RED, IN_STOCK)


def test_a_cached_list_is_used_if_enough_is_left_or_it_is_complete() -> None:
    listed = CachedList(("a", "b", "c"), (b"A", b"B", b"C"), computed_us=0, cost_s=0)
    short = CachedCandidates(listed, CacheLevel.NEAR, is_complete=False, from_content=False)
    assert short.messages(frozenset("b"), 2) == [b"A", b"C"]
    assert short.messages(frozenset("b"), 3) is None
    whole = short._replace(is_complete=True)
    assert whole.messages(frozenset("b"), 3) == [b"A", b"C"]
    assert whole.messages(frozenset("abc"), 3) == []
    assert short._replace(candidates=None).messages(frozenset(), 1) is None


class ReadLists:
    """A cache of lists. read_ids: The item of each list that was asked for."""

    def __init__(self) -> None:
        self.read_ids: list[str] = []

    def read(
        self, query: object, policy: Policy, item_id: str, depth: int, debias: float | None
    ) -> None:
        self.read_ids.append(item_id)


@pytest.mark.parametrize(
    ("origin", "item_ids", "restricted", "read_ids"),
    [
        (Origin.AUTO, ("a",), False, ["a"]),
        # Perhaps the caller may not see it.
        (Origin.AUTO, ("a",), True, []),
        (Origin.TRENDING, (), False, [""]),
        (Origin.TRENDING, (), True, [""]),
        (Origin.AUTO, (), False, []),
    ],
)
def test_a_list_that_all_known_users_share_is_read_before_the_profile(
    origin: Origin, item_ids: tuple[str, ...], restricted: bool, read_ids: list[str]
) -> None:
    request = ListRequest(
        audience=Audience(item_ids=item_ids),
        options=RecommendOptions(),
        policy=Policy(name="home", version=1, origin=origin),
    )
    cache, context = ReadLists(), RequestContext(visible=RED if restricted else None)
    served, rng = SimpleNamespace(), np.random.default_rng(0)
    ListBuilder(cast(Any, served), request, context, cast(Any, cache), rng).prefetch()
    assert cache.read_ids == read_ids


@pytest.mark.parametrize(("restricted", "lookups"), [(True, 1), (False, 0)])
async def test_the_history_of_a_restricted_caller_has_only_items_that_it_may_see(
    restricted: bool, lookups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = []

    async def fetch_items(_: object, ids: list[str], *others: object) -> SimpleNamespace:
        looked_up.append(ids)
        return SimpleNamespace(items={"own": None})

    monkeypatch.setattr(item_lookup, "fetch_items", fetch_items)
    profile = UserProfile([UserEvent(name, 1, "view", None) for name in ("own", "foreign")])
    made = plan()
    made.query.context.visible = RED if restricted else None
    query = made.query
    seen = await list_builder.visible_profile(profile, query.served, query.context)
    assert set(seen.item_ids) == ({"own"} if restricted else {"own", "foreign"})
    assert len(looked_up) == lookups


async def test_items_that_weigh_nothing_take_no_place_of_others(tmp_path: Path) -> None:
    known = replace(learned(IDS, GOES, POPULARITY), kind_weights={"shown": 0.0})
    events = [UserEvent("a", 3, "purchase", None), UserEvent("b", 2, "shown", None)]
    async with recommender(tmp_path, known) as service:
        (served,) = service.collections.in_force
        request = ListRequest(
            audience=Audience(user_id="ann"), options=RecommendOptions(n=2), policy=PLAIN
        )
        rng = np.random.default_rng(0)
        builder = ListBuilder(served, request, RequestContext(), None, rng)
        built = await builder.build(UserProfile(events, kind_weights=known.kind_weights))
    # What goes with "a" is "b", "c" and "d".
    assert [one.hit.id for one in built.recommendations] == ["c", "d"]

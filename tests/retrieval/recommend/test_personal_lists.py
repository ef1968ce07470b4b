"""A user who comes back gets the list of before, unless anything that it depends on has changed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from nearline import contract as c
from nearline.contract import Audience, PayloadField, RecommendOptions
from nearline.errors import NotReady
from nearline.filters import Equals
from retrieval.cache.cached_list import CachedList
from retrieval.cache.change_tracker import ChangeTracker, ValidatedList
from retrieval.protocols.watermark import Watermark
from retrieval.recommend.list_builder import BuiltList
from retrieval.recommend.personal_lists import ListSpec, PersonalLists
from retrieval.recommend.policies import ExploreRule, Policies, Policy, default_policies
from retrieval.recommend.service import RecommendationService
from retrieval.search.request_context import RequestContext
from retrieval.users.codec import pack_attributes
from retrieval.users.records import NO_STATE, StoredState, UserEvent, UserState
from tests.retrieval.fakes import FailingShard
from tests.retrieval.recommend.test_filters import recommender

ANN = Audience(user_id="u003")
FIVE = RecommendOptions(n=5, payload=frozenset({PayloadField.TITLE}))


class States:
    """The events of each user, in the place of Redis. decoded: Number of states decoded."""

    def __init__(self) -> None:
        self.events: dict[str, list[UserEvent]] = {}
        self.deleted_us = 0
        self.decoded = 0

    async def fetch(self, collection: str, user_id: str, session_id: str) -> StoredState:
        names = [one.item_id for one in self.events.get(user_id, [])]
        return StoredState(",".join(names).encode(), b"", self.deleted_us)

    async def decode(self, collection: str, stored: StoredState) -> UserState:
        self.decoded += 1
        events = [
            UserEvent(name, 10**15 - at, "view", None)
            for at, name in enumerate(filter(None, stored.user.decode().split(",")))
        ]
        return UserState(events, stored.deleted_us)


class Tracker:
    """Says that some items were deleted or changed."""

    def __init__(self) -> None:
        self.deleted: set[str] = set()
        self.newer: Watermark | None = None

    def read(self, cached: CachedList | None, item: str = "") -> ValidatedList:
        assert cached is not None
        return ValidatedList(cached.without(self.deleted), self.newer)


class World:
    def __init__(
        self,
        service: RecommendationService,
        states: States,
        tracker: Tracker,
        personal: PersonalLists,
    ) -> None:
        self.service = service
        self.personal = personal.lists
        self.states = states
        self.tracker = tracker

    async def ask(
        self, options: RecommendOptions = FIVE, audience: Audience = ANN
    ) -> tuple[list[str], bool]:
        """Returns the ids of a list, and whether it was kept."""
        reply = await self.service.recommend(audience, options)
        titles = [one.hit.title for one in reply.recommendations]
        ids = [one.hit.id for one in reply.recommendations]
        if PayloadField.TITLE in options.payload:
            assert titles == ids
        return ids, reply.info.served_by == c.ServedBy(source=c.Source.CACHE, reason="near")


@contextlib.asynccontextmanager
async def world(
    folder: Path, policies: Policies | None = None, *, max_bytes: int = 64 << 20
) -> AsyncIterator[World]:
    async with recommender(folder) as plain:
        states, tracker = States(), Tracker()
        trackers = cast(Mapping[str, ChangeTracker], {"default": tracker})
        personal = PersonalLists(trackers, max_bytes)
        service = RecommendationService(
            plain.collections,
            policies or default_policies(),
            cast(Any, states),
            personal=personal,
        )
        yield World(service, states, tracker, personal)


async def test_the_second_list_is_the_first_and_costs_one_read_of_the_state(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        first = await made.ask()
        decoded = made.states.decoded
        assert first[1] is False
        for _ in range(3):
            assert await made.ask() == (first[0], True)
        assert made.states.decoded == decoded


async def test_what_the_user_does_shows_at_once(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        before, _ = await made.ask()
        made.states.events["u003"] = [UserEvent(before[0], 1, "view", None)]
        after, kept = await made.ask()
        assert not kept and before[0] not in after
        assert await made.ask() == (after, True)
        made.states.deleted_us = 10**16
        assert (await made.ask())[1] is False


@pytest.mark.parametrize(
    "other",
    [
        replace(FIVE, n=4),
        replace(FIVE, payload=frozenset()),
        replace(FIVE, exclude_ids=("i07",)),
        replace(FIVE, diversity=0.5),
        replace(FIVE, popularity_debias=0.5),
    ],
)
async def test_another_request_has_a_list_of_its_own(
    tmp_path: Path, other: RecommendOptions
) -> None:
    async with world(tmp_path) as made:
        first = await made.ask()
        another = await made.ask(other)
        assert another[1] is False
        assert await made.ask(other) == (another[0], True)
        assert await made.ask() == (first[0], True)
        assert (await made.ask(audience=Audience(user_id="u004")))[1] is False
        assert (await made.ask(audience=replace(ANN, surface="cart")))[1] is False


async def test_a_list_under_a_filter_is_built_anew_since_other_items_may_match_by_now(
    tmp_path: Path,
) -> None:
    even = Equals("even", True)
    asked = [
        (None, replace(FIVE, filter=even)),
        (Policies([Policy(name="home", version=1, only=even)]), FIVE),
    ]
    for number, (policies, options) in enumerate(asked):
        async with world(tmp_path / str(number), policies) as made:
            first, _ = await made.ask(options)
            assert await made.ask(options) == (first, False)


async def test_lists_take_bounded_memory(tmp_path: Path) -> None:
    async with world(tmp_path, max_bytes=400_000) as made:
        for number in range(300):
            await made.ask(replace(FIVE, exclude_ids=(f"x{number}" * 100,)))
        assert made.personal.size <= 400_000
        assert 0 < len(made.personal) < 300
        # Ids that are excluded take no memory.
        assert (await made.ask(replace(FIVE, exclude_ids=("x299" * 100,))))[1] is True


@pytest.mark.parametrize("options", [{"explain": True}, {"why_not_id": "i05"}])
async def test_an_explained_list_is_the_one_that_is_given(
    tmp_path: Path, options: Mapping[str, Any]
) -> None:
    async with world(tmp_path) as made:
        first, _ = await made.ask()
        for _ in range(2):
            assert await made.ask(replace(FIVE, **options)) == (first, False)


async def test_a_list_whose_items_changed_is_built_anew(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        first, _ = await made.ask()
        assert (await made.ask())[1] is True
        made.tracker.newer = Watermark("0" * 32, (1,) * 64)
        assert await made.ask() == (first, False)
        made.tracker.newer = None
        made.tracker.deleted = {first[2]}
        assert (await made.ask())[1] is False
        made.tracker.deleted = {"i99"}
        assert await made.ask() == (first, True)


def test_a_list_is_kept_until_its_first_item_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    now_us = time.time_ns() // 1_000
    spec = ListSpec(
        *("default", "s1", "p", "u003", "", 1, frozenset(), b""), None, None, pack_attributes({})
    )
    lists = PersonalLists({})
    built = BuiltList(
        recommendations=(),
        ignored=(),
        source="items",
        cached=None,
        expires_us=now_us + 60_000_000,
    )
    lists.put(spec, NO_STATE, built, RequestContext(), now_us)
    for after_s, kept in ((0, True), (59, True), (60, False)):
        at_ns = (now_us + after_s * 1_000_000) * 1_000
        monkeypatch.setattr(
            "retrieval.recommend.personal_lists.time.time_ns", lambda at_ns=at_ns: at_ns
        )
        assert (lists.get(spec, NO_STATE) is not None) is kept


async def test_explored_lists_are_drawn_each_time(tmp_path: Path) -> None:
    policy = Policy(name="home", version=1, explore=ExploreRule(1, 3))
    async with world(tmp_path, Policies([policy])) as made:
        for _ in range(3):
            assert (await made.ask())[1] is False


async def test_a_list_that_lacks_a_shard_or_the_state_is_not_kept(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        (served,) = made.service.collections.in_force
        shards = served.shards
        served.shards = (shards[0], FailingShard(NotReady("away")))
        assert (await made.ask())[1] is False
        served.shards = shards
        assert (await made.ask())[1] is False
        assert (await made.ask())[1] is True


def test_states_are_equal_if_nothing_was_recorded() -> None:
    assert StoredState(b"", b"", 0) == NO_STATE != StoredState(b"x", b"", 0)

"""Requests during a trial, and the outcomes that the analysis gets."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from nearline import contract as c
from nearline.contract import Arm
from nearline.errors import DeadlineExceeded, InvalidRequest, NotApplied, NotReady
from nearline.v1 import release_pb2, snapshot_pb2
from retrieval.rollout.analysis import CanaryAnalysis, CanaryLimits
from retrieval.rollout.split import Requester, TrafficSplit, parse_split
from retrieval.rollout.trial import Trial, TrialRecall
from retrieval.search.collection import ServedCollection
from retrieval.snapshots.loaded_snapshots import LoadedSnapshot, SnapshotKey
from tests.retrieval.rollout.test_split import RECORD

CANARY = cast(ServedCollection, "canary")
Answer = Callable[[], Awaitable[str]]


class RecordedAnalysis:
    """An analysis that keeps the recorded outcomes."""

    def __init__(self) -> None:
        self.assigned: list[bool] = []
        self.requests: list[tuple[bool, bool]] = []
        self.clicks: list[tuple[bool, str, bool]] = []
        self.clickers: list[tuple[int, str]] = []
        self.tenants: list[str] = []
        self.recalls: list[tuple[bool, float]] = []

    def record_assignment(self, canary: bool, unit: int, tenant: str = "") -> None:
        self.assigned.append(canary)
        self.tenants.append(tenant)

    def record_outcome(self, canary: bool, unit: int, seconds: float, *, failed: bool) -> None:
        assert seconds >= 0
        self.requests.append((canary, failed))

    def record_click(
        self, canary: bool, list_id: str, user: int, tenant: str = "", *, converted: bool
    ) -> None:
        self.clicks.append((canary, list_id, converted))
        self.clickers.append((user, tenant))

    def record_recall(self, canary: bool, value: float) -> None:
        self.recalls.append((canary, value))


class World:
    """A trial. current, canary: Behaviour of each arm."""

    def __init__(self, *, shadow: bool = False, share: float = 0.5) -> None:
        split = parse_split("default", RECORD, snapshot_pb2.Manifest())
        self.split: TrafficSplit = replace(split, shadow=shadow, share=share)
        self.told = RecordedAnalysis()
        self.held = LoadedSnapshot(SnapshotKey("default", "b"), CANARY, lambda: 0.0)
        self.trial = Trial(self.split, self.held, cast(CanaryAnalysis, self.told))
        self.current: Exception | str = "from current"
        self.canary: Exception | str = "from canary"
        self.asked: Counter[str] = Counter()
        self.gate = asyncio.Event()
        self.gate.set()

    async def ask(self, user: str, *, hang: bool = False) -> str:
        async def current() -> str:
            if hang:
                await asyncio.Event().wait()
            return _give(self, "current", self.current)

        async def canary(served: ServedCollection) -> str:
            assert served is CANARY and self.held.in_use
            await self.gate.wait()
            return _give(self, "canary", self.canary)

        return await self.trial.answer(current, canary, Requester(user))

    def user(self, *, canary: bool) -> str:
        """Returns a requester who is assigned to an arm."""
        users = (f"u{n}" for n in range(1_000))
        return next(
            one
            for one in users
            if self.split.to_canary(self.split.unit_of(Requester(one))) is canary
        )


def _give(world: World, arm: str, what: Exception | str) -> str:
    world.asked[arm] += 1
    if isinstance(what, Exception):
        raise what
    return what


async def test_each_request_is_answered_by_its_arm() -> None:
    world = World()
    assert await world.ask(world.user(canary=True)) == "from canary"
    assert await world.ask(world.user(canary=False)) == "from current"
    assert world.told.requests == [(True, False), (False, False)]
    assert world.told.assigned == [True, False]
    assert world.asked == {"current": 1, "canary": 1}
    assert not world.held.in_use


@pytest.mark.parametrize("error", [NotReady("away"), InvalidRequest("no such field"), ValueError()])
async def test_the_current_snapshot_answers_when_the_canary_fails(error: Exception) -> None:
    world = World()
    world.canary = error
    # Whatever the error says: the current one can answer it.
    assert await world.ask(world.user(canary=True)) == "from current"
    assert world.told.requests == [(True, True)]


async def test_a_fault_of_the_caller_counts_for_neither_arm() -> None:
    world = World()
    world.canary = world.current = InvalidRequest("k is 0")
    for canary in (True, False):
        with pytest.raises(InvalidRequest):
            await world.ask(world.user(canary=canary))
    assert world.told.requests == []
    assert world.told.assigned == [True, False]
    world.canary = world.current = NotReady("shards are away")
    for canary in (True, False):
        with pytest.raises(NotReady):
            await world.ask(world.user(canary=canary))
    assert world.told.requests == [(True, True), (False, True)]


async def test_a_canary_that_hangs_for_a_moment_has_not_been_assigned_less() -> None:
    world = World(share=0.1)
    analysis = CanaryAnalysis(0.1, CanaryLimits(), dealt_by_unit=False)
    world.trial = Trial(world.split, world.held, analysis)
    world.gate.clear()
    draws = [world.user(canary=number % 10 == 0) for number in range(400)]
    asked = [asyncio.create_task(world.ask(user)) for user in draws]
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    assert analysis.arms()[0].requests == 360
    assert analysis.breach == ""
    world.gate.set()
    assert (await asyncio.gather(*asked)).count("from canary") == 40
    assert analysis.arms()[1].requests == 40


async def test_requests_that_callers_give_up_count_as_slow_not_as_failed_in_either_arm() -> None:
    world = World()
    world.gate.clear()
    for canary in (True, False):
        asked = asyncio.create_task(world.ask(world.user(canary=canary), hang=True))
        await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
    assert world.told.requests == [(True, False), (False, False)]


async def test_a_caller_that_chooses_its_arm_cannot_make_it_fail() -> None:
    world = World()
    for error in (NotApplied("forged watermark"), DeadlineExceeded("a millisecond")):
        world.canary = world.current = error
        for canary in (True, False):
            with pytest.raises(type(error)):
                await world.ask(world.user(canary=canary))
    assert world.told.requests == []
    # A canary that alone lags behind is at fault.
    world.canary, world.current = NotApplied("behind"), "from current"
    assert await world.ask(world.user(canary=True)) == "from current"
    assert world.told.requests == [(True, True)]


async def test_shadow_answers_are_neither_returned_nor_awaited() -> None:
    world = World(shadow=True)
    world.gate.clear()
    assert await world.ask(world.user(canary=True)) == "from current"
    assert await world.ask(world.user(canary=False)) == "from current"
    assert world.told.requests == [(False, False)]
    world.gate.set()
    await asyncio.gather(*world.trial._shadows)
    assert world.told.requests == [(False, False), (True, False)]
    assert world.told.assigned == [True, False]
    assert world.asked == {"current": 2, "canary": 1}
    world.canary = NotReady("away")
    assert await world.ask(world.user(canary=True)) == "from current"
    await asyncio.gather(*world.trial._shadows)
    assert world.told.requests[2:] == [(True, True)]


async def test_a_hanging_shadow_canary_skews_nothing() -> None:
    world = World(shadow=True)
    world.gate.clear()
    chosen, other = world.user(canary=True), world.user(canary=False)
    for _ in range(40):
        assert await world.ask(chosen) == "from current"
    assert len(world.trial._shadows) == 16
    # While it is full, neither arm is told anything.
    await world.ask(other)
    assert world.told.requests == []
    assert world.told.assigned == [True] * 16
    world.trial.end()
    await asyncio.gather(*world.trial._shadows, return_exceptions=True)
    await world.ask(other)
    assert world.told.requests == [(False, False)]
    assert not world.held.in_use


async def test_shadow_answers_are_compared() -> None:
    world = World(shadow=True)
    info = c.ReplyInfo(
        epoch=1,
        snapshot_id="a",
        fingerprint="",
        coverage=c.Coverage(shards_answered=1, shards_total=1),
    )

    def reply(*ids: str) -> c.SearchReply:
        hits = [c.Hit(id=one, score=1.0) for one in ids]
        return c.SearchReply(results=[c.HitList(hits=hits)], info=info)

    world.trial.overlap.add(reply("a", "b", "c", "d"), reply("b", "x", "a", "y"))
    world.trial.overlap.add(reply(), reply("a"))
    assert world.trial.overlap.requests == 2
    assert world.trial.overlap.mean == (0.5 + 1.0) / 2


def test_clicks_count_for_the_arm_that_gave_the_list() -> None:
    world = World()
    mark = world.split.mark_list_id
    canary, current = mark("l1", Arm.CANARY), mark("l2", Arm.CURRENT)
    old = replace(world.split, epoch=world.split.epoch - 1).mark_list_id("l3", Arm.CANARY)
    made_up = f"l5.{world.split.epoch:x}c"
    kinds = [(canary, "view"), (current, "purchase"), (old, "view"), ("l4", "view"), ("", "view")]
    kinds += [(made_up, "view"), (f"{made_up}.{canary.rpartition('.')[2]}", "view")]
    world.trial.record_interactions(
        [c.Interaction(item_id="i", user_id="u", kind=kind, list_id=name) for name, kind in kinds]
    )
    assert world.told.clicks == [(True, canary, False), (False, current, True)]


@pytest.mark.parametrize("split_by", release_pb2.SplitBy.values())
def test_a_click_counts_for_its_user_or_else_its_session_whatever_shares_a_draw(
    split_by: release_pb2.SplitBy,
) -> None:
    world = World()
    split = replace(world.split, split_by=split_by)
    trial = Trial(split, world.held, cast(CanaryAnalysis, world.told))
    name = split.mark_list_id("l1", Arm.CANARY)
    trial.record_interactions(
        [
            c.Interaction(item_id="i", user_id=user, session_id=session, kind="view", list_id=name)
            for user, session in (("u", "s"), ("u", "t"), ("tenant/a%2Fb/u", ""), ("", "u"))
        ]
    )
    by_user, again, of_tenant, by_session = world.told.clickers
    assert by_user == again == (world.split.unit_of(Requester("u", "s")), "default")
    assert of_tenant == (world.split.unit_of(Requester("tenant/a%2Fb/u")), "a/b")
    assert by_session == (world.split.unit_of(Requester("", "u")), "default")
    assert len(set(world.told.clickers)) == 3


async def test_a_trial_of_policies_varies_lists_of_the_canary_alone() -> None:
    world = World()
    served = SimpleNamespace(snapshot_id=world.split.canary, variant="")
    held = LoadedSnapshot(SnapshotKey("default", "b"), cast(ServedCollection, served), lambda: 0.0)
    split = replace(world.split, variant="v")
    trial = Trial(split, held, cast(CanaryAnalysis, world.told))
    seen: list[str] = []

    async def current() -> str:
        return "current"

    async def canary(served: ServedCollection) -> str:
        seen.append(served.variant)
        assert trial.is_canary(served) and not trial.is_canary(trial.canary)
        return "canary"

    users = [Requester(f"u{number}", "", "home") for number in range(50)]
    answers = [await trial.answer(current, canary, user) for user in users]
    assert set(answers) == {"current", "canary"} and set(seen) == {"v"}
    assert set(world.told.tenants) == {"default"}
    assert trial.covers("home") and not trial.covers("")
    assert world.trial.covers("")


def test_the_recall_of_an_arm_is_recorded_for_that_arm() -> None:
    world = World()
    recall = TrialRecall({"default": world.trial}, 0.1)
    recall.record("default", Arm.CURRENT, 0.2)
    recall.record("default", Arm.CANARY, 0.9)
    recall.record("default", None, 0.3)
    recall.record("other", Arm.CANARY, 0.4)
    assert world.told.recalls == [(False, 0.2), (True, 0.9)]


@pytest.mark.parametrize(("current", "canary", "breached"), [(0.0, 1.0, ""), (1.0, 0.0, "recall")])
def test_a_canary_is_judged_by_its_own_recall(current: float, canary: float, breached: str) -> None:
    world = World()
    analysis = CanaryAnalysis(0.5, CanaryLimits(min_recall=0.94), dealt_by_unit=False)
    recall = TrialRecall({"default": Trial(world.split, world.held, analysis)}, 0.1)
    for _ in range(500):
        recall.record("default", Arm.CURRENT, current)
        recall.record("default", Arm.CANARY, canary)
    assert analysis.breached_test == breached

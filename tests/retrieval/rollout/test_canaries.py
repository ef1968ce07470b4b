"""Canary controller: loading canaries, starting and ending trials."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from prometheus_client import REGISTRY

from nearline.errors import NotReady, StoreError
from nearline.retry import Backoff
from nearline.store.snapshot import Store
from nearline.v1 import release_pb2
from retrieval.protocols.snapshot import SnapshotRef
from retrieval.rollout import canaries as under_test
from retrieval.rollout.canaries import CanaryController
from retrieval.rollout.collections import ServedCollections
from retrieval.rollout.split import Requester
from retrieval.search.collection import ServedCollection
from retrieval.snapshots import aliases
from tests.retrieval.small_snapshots import documents_of, write_snapshot


class World:
    """A store with a current and two new snapshots, and a canary controller; now: Clock seconds."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)
        matrix = np.ones((4, 4), np.float32)
        self.old = write_snapshot(folder, documents_of(matrix))
        self.new = write_snapshot(folder, documents_of(matrix), promote=False)
        self.other = write_snapshot(folder, documents_of(matrix), promote=False)
        self.now = 0.0
        self.error: Exception | None = None
        self.hold = asyncio.Event()
        self.hold.set()
        self.attempts = 0
        self.loaded: list[tuple[str, int]] = []
        self.forgotten: list[str] = []
        self.collections = ServedCollections(clock=lambda: self.now)
        self.canaries = CanaryController(
            self.store,
            self.collections,
            self._load,
            lambda name, snapshot_id: self.forgotten.append(snapshot_id),
            clock=lambda: self.now,
        )

    async def _load(self, snapshot: SnapshotRef) -> ServedCollection:
        self.attempts += 1
        await self.hold.wait()
        if self.error is not None:
            raise self.error
        self.loaded.append((snapshot.snapshot_id, snapshot.epoch))
        return cast(ServedCollection, snapshot)

    def look(self) -> None:
        """Polls the aliases once."""
        self.canaries.update("default", self.store.alias_in_force("default"))

    async def until(self, done: Callable[[], bool]) -> None:
        """Polls until a condition holds."""
        async with asyncio.timeout(10):
            while not done():
                self.look()
                await asyncio.sleep(0.005)

    @property
    def tried(self) -> str:
        trial = self.collections.trials.get("default")
        return "" if trial is None else trial.split.canary


def share_answered() -> float | None:
    """Returns the share of requests that the canary answers, by the metric."""
    return REGISTRY.get_sample_value("nearline_retrieval_rollout_share", {"collection": "default"})


def evidence_of(test: str) -> float | None:
    """Returns the evidence of a test against the canary, by the metric."""
    return REGISTRY.get_sample_value(
        "nearline_retrieval_rollout_evidence", {"collection": "default", "test": test}
    )


def breach_limits(world: World) -> None:
    """Lets the canary of a trial fail so often that it is backed out."""
    analysis = world.collections.trials["default"].analysis
    for number in range(400):
        analysis.record_outcome(number % 2 == 0, number, 0.01, failed=number % 2 == 0)


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(under_test, "_BACKOFF", Backoff(0.01))
    return World(tmp_path)


async def test_a_trial_lasts_from_loading_until_the_alias_drops_the_canary(
    world: World,
) -> None:
    world.look()
    assert world.canaries.problem("default") == ""
    world.hold.clear()
    aliases.split(world.store, "default", world.new, 0.2)
    world.look()
    assert (world.tried, world.canaries.problem("default")) == ("", "it is being loaded")
    world.hold.set()
    await world.until(lambda: world.tried == world.new)
    assert world.canaries.problem("default") == ""
    assert world.loaded == [(world.new, 2)]
    assert share_answered() == 0.2
    aliases.end_split(world.store, "default")
    world.look()
    assert (world.tried, share_answered()) == ("", 0)
    # It is held, and goes when it is due.
    assert world.forgotten == []


async def test_a_new_share_takes_over_without_a_gap(world: World) -> None:
    aliases.split(world.store, "default", world.new, 0.2)
    await world.until(lambda: world.tried == world.new)
    before = world.collections.trials["default"]
    world.hold.clear()
    aliases.split(world.store, "default", world.new, 0.4)
    world.look()
    assert world.collections.trials["default"] is before
    world.hold.set()
    await world.until(lambda: world.collections.trials["default"] is not before)
    assert world.collections.trials["default"].split.share == share_answered() == 0.4


async def test_a_promoted_canary_keeps_its_share_until_it_is_current(
    world: World,
) -> None:
    loaded = world.collections.loaded
    loaded.add("default", world.old, cast(ServedCollection, None))
    loaded.make_current("default", world.old)
    aliases.split(world.store, "default", world.new, 0.2)
    await world.until(lambda: world.tried == world.new)
    aliases.promote(world.store, "default", world.new)
    world.look()
    assert world.tried == world.new
    loaded.make_current("default", world.new)
    world.look()
    assert world.tried == ""
    assert world.forgotten == []


async def test_a_canary_that_was_not_promoted_leaves_while_another_snapshot_becomes_current(
    world: World,
) -> None:
    loaded = world.collections.loaded
    loaded.add("default", world.old, cast(ServedCollection, None))
    loaded.make_current("default", world.old)
    # It is current in the store, and not here yet.
    aliases.promote(world.store, "default", world.other)
    aliases.split(world.store, "default", world.new, 0.2)
    await world.until(lambda: world.tried == world.new)
    aliases.end_split(world.store, "default")
    world.look()
    assert world.tried == ""


async def test_a_canary_that_is_promoted_before_its_trial_starts_has_none(world: World) -> None:
    loaded = world.collections.loaded
    loaded.add("default", world.old, cast(ServedCollection, None))
    loaded.make_current("default", world.old)
    world.hold.clear()
    aliases.split(world.store, "default", world.new, 0.2)
    world.look()
    assert world.canaries.problem("default") == "it is being loaded"
    aliases.promote(world.store, "default", world.new)
    world.look()
    assert (world.tried, world.canaries.problem("default")) == ("", "")
    await world.canaries.close()


async def test_a_canary_still_loading_is_released_when_the_trial_ends(world: World) -> None:
    world.hold.clear()
    aliases.split(world.store, "default", world.new, 0.2)
    world.look()
    aliases.end_split(world.store, "default")
    world.look()
    world.hold.set()
    assert world.forgotten == [world.new]
    # What becomes current is being loaded for that.
    aliases.split(world.store, "default", world.new, 0.2)
    world.look()
    aliases.promote(world.store, "default", world.new)
    world.look()
    assert world.forgotten == [world.new]
    await world.canaries.close()


async def test_a_canary_that_is_loaded_after_its_trial_ended_gets_no_requests(world: World) -> None:
    world.hold.clear()
    aliases.split(world.store, "default", world.new, 0.2)
    await world.until(lambda: world.attempts == 1)
    loading = world.canaries._following["default"].loading
    assert loading is not None
    aliases.end_split(world.store, "default")
    world.look()
    world.hold.set()
    await asyncio.wait((loading,), timeout=10)
    assert loading.cancelled()
    assert (world.loaded, world.tried, share_answered()) == ([], "", 0)


async def test_a_canary_that_cannot_be_loaded_is_retried_then_backed_out(world: World) -> None:
    world.error = NotReady("no room")
    limits = release_pb2.RolloutLimits(away_s=20)
    rollout = release_pb2.Rollout(limits=limits)
    aliases.split(world.store, "default", world.new, 0.2, rollout=rollout)
    await world.until(lambda: world.canaries.problem("default") == "no room")
    world.now = 19.0
    world.look()
    assert world.store.alias_in_force("default").canary == world.new
    world.now = 21.0
    await world.until(lambda: not world.store.alias_in_force("default").canary)
    record = world.store.alias_in_force("default")
    assert record.current == world.old
    assert record.why == "backed out automatically: it could not be loaded for 21 s: no room"
    # It recovers in time where it can.
    world.error = None
    aliases.split(world.store, "default", world.new, 0.2)
    await world.until(lambda: world.tried == world.new)


async def test_a_canary_that_is_being_backed_out_starts_no_trial(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.error = NotReady("no room")
    aliases.split(world.store, "default", world.new, 0.2)
    await world.until(lambda: world.canaries.problem("default") == "no room")
    world.hold.clear()
    before = world.attempts
    await world.until(lambda: world.attempts > before)
    refused = []

    def full(*_: object) -> None:
        refused.append(1)
        raise StoreError("no space")

    monkeypatch.setattr(world.store, "create_alias_record", full)
    world.now = 301.0
    world.look()
    # There is room now, too late.
    world.error = None
    world.hold.set()
    await world.until(lambda: len(refused) >= 2)
    assert (world.loaded, world.tried) == ([], "")
    assert world.canaries.problem("default").startswith("backed out: it could not be loaded")
    await world.canaries.close()


async def test_a_breach_ends_the_trial_here_at_once_and_in_the_store_with_retries(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    aliases.split(world.store, "default", world.new, 0.5)
    await world.until(lambda: world.tried == world.new)
    breach_limits(world)
    create = world.store.create_alias_record
    attempts = []

    def full(*_: object) -> None:
        attempts.append(1)
        raise StoreError("no space")

    monkeypatch.setattr(world.store, "create_alias_record", full)
    assert share_answered() == 0.5
    world.look()
    assert (world.tried, share_answered()) == ("", 0)
    await world.until(lambda: len(attempts) >= 3)
    assert world.canaries.problem("default").startswith("backed out: errors: canary failed")
    monkeypatch.setattr(world.store, "create_alias_record", create)
    await world.until(lambda: not world.store.alias_in_force("default").canary)
    assert world.store.alias_in_force("default").why.startswith("backed out automatically: errors:")
    world.look()
    assert world.canaries.problem("default") == ""


async def test_the_evidence_of_each_test_is_exported_as_a_share_of_its_limit(world: World) -> None:
    aliases.split(world.store, "default", world.new, 0.5)
    await world.until(lambda: world.tried == world.new)
    analysis = world.collections.trials["default"].analysis
    shares = []
    for share in (0, 1):
        for number in range(40):
            analysis.record_outcome(number % 2 == 0, number, 0.01, failed=number % 8 < share)
        assert analysis.breach == ""
        world.look()
        exported = {test.name: evidence_of(test.name) for test in analysis.tests()}
        assert exported == {test.name: test.evidence / test.limit for test in analysis.tests()}
        shares.append(exported["errors"] or 0.0)
    assert 0 <= shares[0] < shares[1] < 1


async def test_a_late_back_out_does_not_end_a_newer_trial(world: World) -> None:
    aliases.split(world.store, "default", world.new, 0.5)
    await world.until(lambda: world.tried == world.new)
    breach_limits(world)
    stale = world.store.alias_in_force("default")
    aliases.split(world.store, "default", world.new, 0.1)
    # This router has not seen the newer record yet.
    world.canaries.update("default", stale)
    await world.until(lambda: world.tried == world.new)
    assert world.store.alias_in_force("default").canary_share == 0.1


@pytest.mark.parametrize("end", ["breach", "another share", "no canary", "close"])
async def test_shadow_answers_that_run_when_a_trial_ends_are_cancelled(
    world: World, end: str
) -> None:
    rollout = release_pb2.Rollout(shadow=True)
    aliases.split(world.store, "default", world.new, 0.5, rollout=rollout)
    await world.until(lambda: world.tried == world.new)
    started, cancelled = asyncio.Event(), asyncio.Event()
    unanswered: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def current() -> str:
        return "current"

    async def canary(served: ServedCollection) -> str:
        started.set()
        try:
            return await unanswered
        except asyncio.CancelledError:
            cancelled.set()
            raise

    for number in range(64):
        requester = Requester(f"u{number}")
        trial = world.collections.trials["default"]
        assert await trial.answer(current, canary, requester) == "current"
    await started.wait()
    assert not cancelled.is_set() and share_answered() == 0
    if end == "breach":
        breach_limits(world)
    elif end == "another share":
        aliases.split(world.store, "default", world.new, 0.25, rollout=rollout)
    elif end == "no canary":
        aliases.end_split(world.store, "default")
    if end == "close":
        await world.canaries.close()
        await asyncio.wait_for(cancelled.wait(), 10)
    else:
        await world.until(cancelled.is_set)

"""What a router reports of the trial of a canary."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from nearline.access.caller import Caller
from nearline.store.snapshot import Store
from nearline.v1 import admin_pb2, types_pb2
from retrieval.protocols.snapshot import SnapshotRef
from retrieval.rollout.analysis import CanaryAnalysis, CanaryLimits
from retrieval.rollout.canaries import CanaryController
from retrieval.rollout.collections import ServedCollections
from retrieval.rollout.split import parse_split
from retrieval.rollout.trial import Trial
from retrieval.router import admin_servicer as under_test
from retrieval.router.admin_servicer import AdminServicer
from retrieval.router.live_reports import LiveReporter
from retrieval.search.collection import ServedCollection
from retrieval.snapshots import aliases
from retrieval.snapshots.proposals import propose
from tests.retrieval.small_snapshots import documents_of, write_snapshot

NO_CONTEXT = cast(Any, None)
NAMES = ["latency", "errors", "clicks", "conversions", "sample_ratio"]


class Router:
    """A store with a canary on trial, and the servicer of a router that tries it."""

    def __init__(self, root: Path) -> None:
        documents = documents_of(np.ones((1, 2), np.float32))
        self.current = write_snapshot(root, documents)
        self.canary = write_snapshot(root, documents, promote=False)
        self.store = Store(root)
        self.collections = ServedCollections()
        self.analysis = CanaryAnalysis(0.5, CanaryLimits(), dealt_by_unit=False)
        controller = CanaryController(
            self.store, self.collections, self._load, lambda name, snapshot_id: None
        )
        live = LiveReporter(self.store, None, cast(Any, None))
        self.servicer = AdminServicer(
            self.store, self.collections, {}, live, controller, *cast(Any, (None, None))
        )

    async def _load(self, snapshot: SnapshotRef) -> ServedCollection:
        raise AssertionError("the test starts the trial")

    def begin(self) -> Trial:
        """Starts a trial by the current record."""
        record = self.store.alias_in_force("default")
        manifest = self.store.manifest("default", self.canary)
        held = self.collections.loaded.add("default", self.canary, cast(ServedCollection, None))
        trial = Trial(parse_split("default", record, manifest), held, self.analysis)
        self.collections.trials["default"] = trial
        return trial

    async def status(self) -> admin_pb2.GetRolloutStatusResponse:
        return await self.servicer.GetRolloutStatus(admin_pb2.GetRolloutStatusRequest(), NO_CONTEXT)


@pytest.fixture(name="router")
def give_router(tmp_path: Path) -> Router:
    router = Router(tmp_path)
    aliases.split(router.store, "default", router.canary, 0.5)
    return router


async def test_the_results_of_each_arm_are_reported_under_their_names(router: Router) -> None:
    trial = router.begin()
    analysis = router.analysis
    # Counts that differ from each other. Requests: 3 of 5 units, and 4 of 7.
    for is_canary, units, requests, failed in ((False, 5, 3, 1), (True, 7, 4, 2)):
        for unit in range(units):
            analysis.record_assignment(is_canary, unit)
        for number in range(requests):
            analysis.record_outcome(
                is_canary, number, 0.01 * (number + is_canary), failed=number < failed
            )
    for recall in (0.5, 1.0, 0.75):
        analysis.record_recall(True, recall)
    for number in range(8):
        analysis.record_list(True)
        if number < 6:
            analysis.record_click(True, str(number), number << 20, converted=False)
        if number < 5:
            analysis.record_click(True, str(number), number << 20, converted=True)
    trial.overlap.add(None, None)
    seen, seen_of_canary = analysis.arms()
    assert len({one for arm in analysis.arms() for one in (arm.p50_ms, arm.p99_ms)}) == 4
    reply = await router.status()
    assert reply.running and not reply.problem
    assert reply.in_force.epoch == router.store.alias_in_force("default").epoch
    current, canary = reply.arms
    assert current == admin_pb2.ArmStatus(
        arm=types_pb2.ARM_CURRENT, snapshot_id=router.current, requests=3, errors=1, units=5,
        p50_ms=seen.p50_ms, p99_ms=seen.p99_ms,
    )  # fmt: skip
    assert canary == admin_pb2.ArmStatus(
        arm=types_pb2.ARM_CANARY, snapshot_id=router.canary, requests=4, errors=2, units=7,
        p50_ms=seen_of_canary.p50_ms, p99_ms=seen_of_canary.p99_ms, recall_samples=3, recall=0.75,
        lists=8, clicks=6, conversions=5,
    )  # fmt: skip
    assert [test.name for test in reply.tests] == NAMES
    assert {test.limit for test in reply.tests} == {500}
    assert all(test.seen and test.evidence > 0 for test in reply.tests)
    assert [(one.rate, one.verdict) for one in reply.verdicts] == [
        ("clicks", "undecided"),
        ("conversions", "undecided"),
    ]
    assert all(one.evidence > 1 and one.limit == 80 for one in reply.verdicts)
    assert (reply.compared, reply.overlap) == (1, 1)


@pytest.mark.parametrize(("tenant", "shown"), [("*", "acme"), ("acme", "")])
async def test_only_an_operator_sees_which_tenant_holds_a_verdict_back(
    router: Router, monkeypatch: pytest.MonkeyPatch, tenant: str, shown: str
) -> None:
    router.begin()
    for number in range(200):
        name = ("acme", "other")[number % 2]
        router.analysis.record_assignment(number % 4 < 2, number << 20, name)
        # Whoever clicks is of one tenant, and only in lists of the canary.
        router.analysis.record_click(True, str(number), number << 20, "acme", converted=False)
    caller = Caller(tenant=tenant, rights={})
    monkeypatch.setattr(under_test, "current_caller", lambda: caller)
    clicks, _ = (await router.status()).verdicts
    assert (clicks.verdict, clicks.tenant) == ("undecided", shown)
    assert clicks.held_back == "a tenant with 100% of the clicks; without it: undecided"


async def test_no_reader_learns_how_requests_are_assigned(router: Router) -> None:
    secret = router.store.alias_in_force("default").rollout.rollout_id
    assert len(secret) == 32
    aliases.split(router.store, "default", router.canary, 0.6)
    request = admin_pb2.GetAliasesRequest(history=10)
    shown = await router.servicer.GetAliases(request, NO_CONTEXT)
    assert shown.in_force.rollout.HasField("start_time") and len(shown.history) == 2
    assert not shown.history[1].HasField("rollout")
    for reply in (shown, await router.status()):
        assert secret not in str(reply)
    assert router.store.alias_in_force("default").rollout.rollout_id == secret


async def test_a_trial_of_an_older_record_is_not_reported(router: Router) -> None:
    router.begin()
    assert (await router.status()).running
    aliases.end_split(router.store, "default")
    reply = await router.status()
    assert not reply.running and not reply.arms and not reply.tests
    assert reply.in_force.current == router.current


async def test_an_open_proposal_is_reported_until_it_is_tried(tmp_path: Path) -> None:
    router = Router(tmp_path)
    assert not (await router.status()).proposed_snapshot_id
    propose(
        router.store, "default", router.canary, "drift of score", (await router.status()).in_force
    )
    reply = await router.status()
    assert (reply.proposed_snapshot_id, reply.proposal_reason) == (router.canary, "drift of score")
    aliases.split(router.store, "default", router.canary, 0.5)
    assert not (await router.status()).proposed_snapshot_id

"""A proposed snapshot is tried, and promoted once it has answered enough requests."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from index_builder.pipeline.maintenance_settings import UpkeepSettings
from index_builder.releases.release_loop import ReleaseLoop
from nearline.errors import GateFailed, SettingsError
from nearline.store.snapshot import Store
from nearline.v1 import admin_pb2, snapshot_pb2
from retrieval.snapshots import aliases, proposals
from retrieval.snapshots.proposals import ProposalState, read_proposals
from tests.index_builder.live_collection import Living

NAME = "default"


class _Router:
    """A router that writes the records, and says what its canary answered.

    requests: Answers of the canary. problem: Why it cannot try the canary.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.requests = 0
        self.problem = ""

    async def split(
        self, canary: str, share: float = 0.0, collection: str = NAME, **change: object
    ) -> snapshot_pb2.AliasRecord:
        if not canary:
            return aliases.end_split(self._store, collection, **change)  # type: ignore[arg-type]
        return aliases.split(self._store, collection, canary, share, **change)  # type: ignore[arg-type]

    async def promote(
        self, snapshot_id: str, collection: str, **change: object
    ) -> snapshot_pb2.AliasRecord:
        return aliases.promote(self._store, collection, snapshot_id, **change)  # type: ignore[arg-type]

    async def rollout_status(self, collection: str) -> admin_pb2.GetRolloutStatusResponse:
        record = self._store.alias_in_force(collection)
        arms = [
            admin_pb2.ArmStatus(snapshot_id=record.current, requests=10**6),
            admin_pb2.ArmStatus(snapshot_id=record.canary, requests=self.requests),
        ]
        if self.problem:
            return admin_pb2.GetRolloutStatusResponse(in_force=record, problem=self.problem)
        return admin_pb2.GetRolloutStatusResponse(in_force=record, running=True, arms=arms)


class _Trial:
    """Two snapshots of a collection, of which the second is proposed.

    ahead_s: How much the clock of the loop is ahead.
    """

    def __init__(self, living: Living, current: str, proposed: str, settings: object) -> None:
        self.store = living.store
        self.current, self.proposed = current, proposed
        self.router = _Router(living.store)
        self.ahead_s = 0.0
        values = {"releases": "auto", "store": living.options.store}
        config = UpkeepSettings.load(values | settings)  # type: ignore[operator]
        self.loop = ReleaseLoop(
            config,
            living.store,
            self.router,  # type: ignore[arg-type]
            clock=lambda: time.time() + self.ahead_s,
        )

    @property
    def record(self) -> snapshot_pb2.AliasRecord:
        return self.store.alias_in_force(NAME)

    @property
    def states(self) -> list[ProposalState]:
        return [one.state for one in read_proposals(self.store, NAME)]


async def _trial(folder: Path, **settings: object) -> _Trial:
    living = Living(folder)
    corpus = living.corpus({"a": "A.", "b": "B."}, 10)
    current = (await living.build(corpus)).snapshot_id
    proposed = (await living.build(corpus, promote=False)).snapshot_id
    trial = _Trial(living, current, proposed, settings)
    await trial.loop.propose(NAME, proposed, "drift of score", trial.record)
    return trial


async def test_a_proposal_goes_on_trial_and_is_promoted_after_time_and_requests(
    tmp_path: Path,
) -> None:
    trial = await _trial(tmp_path, trial_share=0.2)
    record = trial.record
    assert (record.current, record.canary) == (trial.current, trial.proposed)
    assert (record.canary_share, record.who, record.why) == (0.2, "upkeep", "drift of score")
    trial.router.requests = 1_000
    trial.ahead_s = 3_500.0
    assert await trial.loop.advance(NAME)
    assert trial.states == [ProposalState.ON_TRIAL]
    trial.ahead_s = 3_700.0
    trial.router.requests = 999
    assert await trial.loop.advance(NAME)
    assert trial.states == [ProposalState.ON_TRIAL]
    trial.router.requests = 1_000
    await trial.loop.advance(NAME)
    assert trial.record.current == trial.proposed
    assert trial.record.why.startswith("drift of score; on trial it answered 1,000 requests")
    assert trial.states == [ProposalState.PROMOTED]
    assert not await trial.loop.advance(NAME)


async def test_a_trial_with_few_requests_ends_in_a_promotion_after_its_limit(
    tmp_path: Path,
) -> None:
    trial = await _trial(tmp_path)
    trial.router.requests = 17
    trial.ahead_s = 86_300.0
    await trial.loop.advance(NAME)
    assert trial.states == [ProposalState.ON_TRIAL]
    trial.ahead_s = 86_500.0
    await trial.loop.advance(NAME)
    assert trial.record.current == trial.proposed
    assert "on trial it answered 17 requests without harm" in trial.record.why


async def test_a_canary_that_no_router_could_load_is_not_promoted(tmp_path: Path) -> None:
    trial = await _trial(tmp_path)
    trial.router.problem = "canary cannot be loaded"
    trial.ahead_s = 86_500.0
    await trial.loop.advance(NAME)
    assert (trial.record.current, trial.record.canary) == (trial.current, "")
    assert trial.record.why == "the trial ended after 24h: canary cannot be loaded"
    assert trial.states == [ProposalState.REJECTED]


async def test_after_a_canary_was_backed_out_a_rebuild_waits_two_days(tmp_path: Path) -> None:
    trial = await _trial(tmp_path)
    aliases.end_split(trial.store, NAME, why="backed out automatically: latency")
    (proposal,) = read_proposals(trial.store, NAME)
    assert (proposal.state, proposal.why) == (
        ProposalState.REJECTED,
        "backed out automatically: latency",
    )
    assert await trial.loop.advance(NAME)
    assert not trial.record.canary  # It is not tried again.
    trial.ahead_s = 2 * 86_400.0 + 100
    assert not await trial.loop.advance(NAME)


async def test_a_rebuild_waits_two_days_from_the_rejection_on_not_from_the_proposal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day_s = 86_400.0
    with monkeypatch.context() as earlier:
        earlier.setattr(proposals, "time", SimpleNamespace(time=lambda: time.time() - 3 * day_s))
        trial = await _trial(tmp_path, trial_limit="4d")
    aliases.end_split(trial.store, NAME)
    trial.ahead_s = day_s
    assert await trial.loop.advance(NAME)
    assert trial.states == [ProposalState.REJECTED]
    trial.ahead_s = 2.1 * day_s
    assert not await trial.loop.advance(NAME)


async def test_what_was_rolled_back_is_not_promoted_again_for_two_days(tmp_path: Path) -> None:
    trial = await _trial(tmp_path)
    trial.router.requests = 1_000
    trial.ahead_s = 3_700.0
    await trial.loop.advance(NAME)
    assert trial.record.current == trial.proposed
    assert not await trial.loop.advance(NAME)
    aliases.roll_back(trial.store, NAME)
    assert trial.states == [ProposalState.REJECTED]
    assert await trial.loop.advance(NAME)
    trial.ahead_s = 2 * 86_400.0 + 100
    assert not await trial.loop.advance(NAME)
    # The record and the snapshot have gone: they would hold back the change log.
    assert trial.states == []
    assert set(trial.store.snapshot_ids(NAME)) == {trial.current}


async def test_a_proposal_whose_trial_cannot_begin_is_given_up_after_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*arguments: object, **named: object) -> None:
        raise GateFailed("the release gate has not judged it")

    monkeypatch.setattr(_Router, "split", refuse)
    living = Living(tmp_path)
    corpus = living.corpus({"a": "A."}, 10)
    current = (await living.build(corpus)).snapshot_id
    proposed = (await living.build(corpus, promote=False)).snapshot_id
    trial = _Trial(living, current, proposed, {})
    with pytest.raises(GateFailed):
        await trial.loop.propose(NAME, proposed, "drift", trial.record)
    assert trial.states == [ProposalState.OPEN]
    trial.ahead_s = 86_500.0
    assert not await trial.loop.advance(NAME)
    assert trial.states == []
    assert set(trial.store.snapshot_ids(NAME)) == {current}


async def test_a_trial_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    living = Living(tmp_path)
    corpus = living.corpus({"a": "A."}, 10)
    current = (await living.build(corpus)).snapshot_id
    mine, theirs = [(await living.build(corpus, promote=False)).snapshot_id for _ in range(2)]
    trial = _Trial(living, current, mine, {})
    before = aliases.split(living.store, NAME, theirs, 0.1)
    await trial.loop.propose(NAME, mine, "drift", before)
    assert trial.record.epoch == before.epoch
    assert trial.states == [ProposalState.OPEN]
    aliases.end_split(living.store, NAME)
    await trial.loop.advance(NAME)
    assert trial.record.canary == mine


async def test_propose_only_proposes(tmp_path: Path) -> None:
    trial = await _trial(tmp_path, releases="propose")
    trial.router.requests = 10_000
    trial.ahead_s = 86_500.0
    assert await trial.loop.advance(NAME)
    assert (trial.record.current, trial.record.canary) == (trial.current, "")
    assert trial.states == [ProposalState.OPEN]


async def test_a_proposal_that_replaces_a_rejected_one_removes_its_snapshot(
    tmp_path: Path,
) -> None:
    trial = await _trial(tmp_path)
    aliases.end_split(trial.store, NAME)
    living = Living(tmp_path)
    second = (await living.build(living.corpus({"a": "A."}, 10), promote=False)).snapshot_id
    await trial.loop.propose(NAME, second, "drift again", trial.record)
    assert set(trial.store.snapshot_ids(NAME)) == {trial.current, second}
    (proposal,) = read_proposals(trial.store, NAME)
    assert proposal.snapshot_id == second


async def test_a_trial_that_ends_before_it_may_promote_is_refused_with_the_remedy(
    tmp_path: Path,
) -> None:
    config = UpkeepSettings.load({"trial_age": "2h", "trial_limit": "1h"})
    with pytest.raises(SettingsError, match="trial_limit 1h is shorter than trial_age 2h"):
        ReleaseLoop(config, Store.open(str(tmp_path)), None)

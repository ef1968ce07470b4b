"""Maintenance proposes rebuilds after drift or age, and retrains existing models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from index_builder.maintenance import Maintenance
from index_builder.options.training_options import TrainingOptions
from index_builder.pipeline import upkeep_metrics
from index_builder.pipeline.maintenance_settings import UpkeepSettings
from index_builder.pipeline.work_folder import NoDocuments
from index_builder.releases import gate
from index_builder.releases.gate_report import make_check
from nearline.contract import InteractionColumns
from nearline.errors import GateFailed, NotReady, SnapshotCorrupt
from nearline.v1 import admin_pb2
from retrieval.embedders.endpoints import Embedders
from retrieval.snapshots import aliases
from retrieval.snapshots.gate_reports import require_gate_pass
from retrieval.snapshots.proposals import Proposal, ProposalState, read_proposals
from retrieval.users.importer import Importer
from retrieval.users.imports import ImportedInteractions
from retrieval.users.records import LoggedInteraction
from tests.index_builder.behaviour.circular_walks import ITEMS, walks
from tests.index_builder.behaviour.trained_snapshots import read_trained
from tests.index_builder.live_collection import Living
from tests.retrieval.changelog.memory_log import MemoryLog, NoUsers

TEXTS = {f"i{number:02d}": f"Item {number} of them." for number in range(ITEMS)}


class _Users(NoUsers):
    """One user with one item."""

    async def logged(self, collection: str) -> AsyncIterator[LoggedInteraction]:
        yield LoggedInteraction("new", "", "i01", "view", 2_000_000_000_000_000, None)


class _Walkers(NoUsers):
    """Users with the interactions of `walks`, and a session without a user."""

    steps = 9

    async def count_logged(self, collection: str) -> int:
        return len(walks(steps=self.steps).user) + 1

    async def logged(self, collection: str) -> AsyncIterator[LoggedInteraction]:
        rows = walks(steps=self.steps)
        for user, item, time_us in zip(rows.user, rows.item, rows.time_us, strict=True):
            of_user = (rows.users[user], "", rows.items[item])
            yield LoggedInteraction(*of_user, "view", int(time_us), None)
        yield LoggedInteraction("", "session", "i01", "view", 2_000_000_000_000_000, None)


class _Walking(_Walkers):
    """The same users, later."""

    steps = 18


class _NoInteractions(NoUsers):
    async def logged(self, collection: str) -> AsyncIterator[LoggedInteraction]:
        return
        yield


class _Logs:
    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    def log(self, collection: str) -> MemoryLog:
        return self._log


class _Requests:
    """Rebuild requests of a router, each taken once."""

    def __init__(self, *reasons: str) -> None:
        self._reasons = list(reasons)

    async def take(self, collection: str) -> str:
        return self._reasons.pop(0) if self._reasons else ""


class _Statuses:
    """Keeps what is told of trainings."""

    def __init__(self) -> None:
        self.told: list[admin_pb2.TrainingStatus] = []

    async def put(self, collection: str, status: admin_pb2.TrainingStatus) -> None:
        self.told.append(admin_pb2.TrainingStatus.FromString(status.SerializeToString()))


def _maintenance(
    living: Living, *reasons: str, statuses: _Statuses | None = None, **options: object
) -> Maintenance:
    chosen = UpkeepSettings.load(
        {
            "store": living.options.store,
            "golden_queries": 0,
            "age": "100000d",
            "releases": "propose",
            **options,
        }
    )
    return Maintenance(
        chosen,
        living.store,
        _Logs(living.log),  # type: ignore[arg-type]
        Embedders({"it": living.embedder}),
        _Requests(*reasons),  # type: ignore[arg-type]
        statuses=statuses,  # type: ignore[arg-type]
    )


async def _train_first(maintenance: Maintenance) -> bool:
    """Runs two rounds: in the first, the log may still be being filled."""
    assert not await maintenance.run_once("default")
    return await maintenance.run_once("default")


@pytest.fixture
def living(tmp_path: Path) -> Living:
    living = Living(tmp_path)
    living.make_log()
    return living


def _proposed(living: Living) -> Proposal:
    (proposal,) = read_proposals(living.store, "default")
    return proposal


async def test_a_requested_rebuild_is_proposed_with_changes_below_the_limit(
    living: Living,
) -> None:
    before = (await living.build(living.corpus(TEXTS, 10))).snapshot_id
    await living.upsert("new", "New.")
    maintenance = _maintenance(living, "drift of score: 0.4 is above 0.25", "again")
    assert await maintenance.run_once("default")
    proposal = _proposed(living)
    assert living.store.alias_in_force("default").current == before
    assert (proposal.state, proposal.current) == (ProposalState.OPEN, before)
    assert proposal.reason == "drift of score: 0.4 is above 0.25"
    # The gate has passed it: the server accepts its promotion.
    verdict, _ = require_gate_pass(living.store, "default", proposal.snapshot_id)
    assert verdict.passed
    aliases.promote(living.store, "default", proposal.snapshot_id)
    assert "new" in living.texts()


async def test_no_second_rebuild_begins_while_a_proposal_is_open(living: Living) -> None:
    await living.build(living.corpus(TEXTS, 10))
    maintenance = _maintenance(living, "drift", "more drift")
    assert await maintenance.run_once("default")
    assert not await maintenance.run_once("default")
    aliases.promote(living.store, "default", _proposed(living).snapshot_id)
    assert await maintenance.run_once("default")
    assert _proposed(living).reason == "more drift"


async def test_a_compaction_outdates_a_proposal_and_removes_it(living: Living) -> None:
    await living.build(living.corpus(TEXTS, 10))
    assert await _maintenance(living, "drift").run_once("default")
    proposed = _proposed(living).snapshot_id
    await living.upsert("new", "New.")
    compacting = _maintenance(living, share=0.0)
    assert await compacting.run_once("default")
    assert _proposed(living).state is ProposalState.OUTDATED
    assert not await compacting.run_once("default")
    assert proposed not in living.store.snapshot_ids("default")
    assert not read_proposals(living.store, "default")


async def test_a_rebuild_waits_during_a_trial_and_without_compaction(
    living: Living,
) -> None:
    corpus = living.corpus(TEXTS, 10)
    first = (await living.build(corpus)).snapshot_id
    await living.build(corpus)
    assert not await _maintenance(living, "drift", compact=False).run_once("default")
    assert not await _maintenance(living, "drift", releases="off").run_once("default")
    aliases.split(living.store, "default", first, 0.1)
    maintenance = _maintenance(living, "drift")
    assert not await maintenance.run_once("default")
    aliases.end_split(living.store, "default")
    assert await maintenance.run_once("default")


async def test_a_rebuild_trains_on_interactions_recorded_since(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning = TrainingOptions(interactions=walks(), kind_weights={"view": 1.0})
    await living.build(living.corpus(TEXTS, 10), training=learning)
    before = living.manifest.behaviour.interactions
    monkeypatch.setattr(living.log, "user_states", _Users, raising=False)
    assert await _maintenance(living, "drift of popularity: 0.4 is above 0.25").run_once("default")
    built = living.store.manifest("default", _proposed(living).snapshot_id)
    assert built.behaviour.interactions == before + 1


async def test_old_models_are_trained_again_once_newer_interactions_were_recorded(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning = TrainingOptions(interactions=walks(), kind_weights={"view": 1.0})
    await living.build(living.corpus(TEXTS, 10), training=learning)
    monkeypatch.setattr(living.log, "user_states", _NoInteractions, raising=False)
    assert not await _maintenance(living).run_once("default")
    monkeypatch.setattr(living.log, "user_states", _Users, raising=False)
    assert not await _maintenance(living, models_age="0s").run_once("default")
    assert not await _maintenance(living, models_age="100000d").run_once("default")
    assert await _maintenance(living).run_once("default")
    assert "models know nothing newer than" in _proposed(living).reason


async def test_first_models_are_trained_on_enough_recorded_interactions_and_served(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (await living.build(living.corpus(TEXTS, 10))).snapshot_id
    monkeypatch.setattr(living.log, "user_states", _Walkers, raising=False)
    enough = len(walks().user)
    # The session without a user trains nothing.
    assert not await _train_first(_maintenance(living, first_training=enough + 1))
    assert not await _train_first(_maintenance(living, first_training=0))
    assert living.store.alias_in_force("default").current == before
    maintenance = _maintenance(living, first_training=enough, releases="off")
    assert await _train_first(maintenance)
    record = living.store.alias_in_force("default")
    assert record.why == f"training: first models, trained on {enough} recorded interactions"
    assert living.manifest.behaviour.interactions == enough
    assert not await maintenance.run_once("default")
    assert not read_proposals(living.store, "default")


async def test_interactions_before_the_first_item_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    living = Living(tmp_path)
    await living.create_empty()
    monkeypatch.setattr(living.log, "user_states", _Walkers, raising=False)
    statuses = _Statuses()
    maintenance = _maintenance(living, first_training=1, statuses=statuses)
    for _ in range(3):
        assert not await maintenance.run_once("default")
    assert statuses.told[-1].problem == "waits for items: the collection has none"
    # An item that is gone again is none, either.
    await living.upsert("i00", "Gone.")
    await living.delete("i00")
    with pytest.raises(NoDocuments):
        await maintenance.run_once("default")
    for name, text in TEXTS.items():
        await living.upsert(name, text)
    # Neither the failure nor what that build had begun stands in the way.
    assert await maintenance.run_once("default")
    assert living.manifest.documents == len(TEXTS)
    assert await _train_first(maintenance)
    assert (statuses.told[-1].progress, statuses.told[-1].problem) == ("", "")


async def test_a_rebuild_serves_at_once_if_no_router_is_there_to_try_it(living: Living) -> None:
    before = (await living.build(living.corpus(TEXTS, 10))).snapshot_id
    assert await _maintenance(living, "drift", releases="auto").run_once("default")
    record = living.store.alias_in_force("default")
    assert record.current != before and record.why == "rebuild: drift"
    assert not read_proposals(living.store, "default")


async def test_models_are_trained_again_once_twice_as_many_interactions_were_recorded(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    await living.build(living.corpus(TEXTS, 10))
    maintenance = _maintenance(living, first_training=1, releases="auto", models_age="0s")
    monkeypatch.setattr(living.log, "user_states", _Walkers, raising=False)
    assert await _train_first(maintenance)
    known = len(walks().user)
    assert living.manifest.behaviour.recorded == known
    assert not await maintenance.run_once("default")
    monkeypatch.setattr(living.log, "user_states", _Walking, raising=False)
    # It may still be being filled.
    assert not await maintenance.run_once("default")
    assert await maintenance.run_once("default")
    why = f"rebuild: {2 * known} interactions were recorded, {known} when the models were trained"
    assert living.store.alias_in_force("default").why == why
    assert living.manifest.behaviour.interactions == 2 * known
    assert not await maintenance.run_once("default")


async def test_models_are_trained_before_the_first_live_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    living = Living(tmp_path)
    await living.build(living.corpus(TEXTS, 10))
    monkeypatch.setattr(living.log, "user_states", _Walkers, raising=False)
    assert await _train_first(_maintenance(living, first_training=1))
    assert living.manifest.behaviour.interactions == len(walks().user)


async def test_trainings_are_told_with_what_they_need_their_progress_and_their_failure(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    await living.build(living.corpus(TEXTS, 10))
    monkeypatch.setattr(living.log, "user_states", _Walkers, raising=False)
    statuses, recorded = _Statuses(), len(walks().user)
    short = _maintenance(living, first_training=recorded + 5, statuses=statuses)
    assert not await short.run_once("default")
    (told,) = statuses.told
    # The log has an entry of a session, too, but as yet it was not read.
    assert (told.recorded, told.needed, told.trained) == (recorded + 1, recorded + 5, 0)
    failed = make_check("recall", False, "recall@10 is 0.5", "build again")
    with monkeypatch.context() as patch:
        patch.setitem(gate._CHECKS, "recall", lambda comparison: failed)
        with pytest.raises(GateFailed):
            await _train_first(_maintenance(living, first_training=1, statuses=statuses))
    assert "recall@10 is 0.5" in statuses.told[-1].problem and not statuses.told[-1].progress
    statuses.told.clear()
    maintenance = _maintenance(living, first_training=1, models_age="0s", statuses=statuses)
    assert await _train_first(maintenance)
    assert "training" in {one.progress.partition(":")[0] for one in statuses.told}
    assert not await maintenance.run_once("default")
    told = statuses.told[-1]
    assert (told.trained, told.needed) == (recorded, recorded + recorded // 10)
    assert (told.progress, told.problem) == ("", "")


def _import_walks(living: Living) -> None:
    rows = walks()
    importer = Importer(ImportedInteractions(living.store, "default"), "past", 0)
    importer.add(
        InteractionColumns(
            [rows.users[one] for one in rows.user],
            [rows.items[one] for one in rows.item],
            rows.time_us.tolist(),
        )
    )
    importer.finish()


async def test_imported_interactions_count_for_the_first_models_but_not_of_who_was_deleted(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    await living.build(living.corpus(TEXTS, 10))
    # Redis has forgotten the deletion.
    monkeypatch.setattr(living.log, "user_states", _NoInteractions, raising=False)
    _import_walks(living)
    ImportedInteractions(living.store, "default").mark_deleted("u000", 3_000_000_000_000_000)
    enough = len(walks().user) - int((walks().user == walks().users.index("u000")).sum())
    assert not await _train_first(_maintenance(living, first_training=enough + 1))
    assert await _train_first(_maintenance(living, first_training=enough))
    assert living.manifest.behaviour.interactions == enough
    trained = read_trained(living.store)
    assert trained.had_by("u000") is None and trained.had_by("u001") is not None


async def test_old_models_are_not_trained_again_on_imports_that_are_no_newer(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = TrainingOptions(interactions=walks(), recorded=len(walks().user))
    await living.build(living.corpus(TEXTS, 10), training=known)
    monkeypatch.setattr(living.log, "user_states", _NoInteractions, raising=False)
    _import_walks(living)
    assert not await _maintenance(living).run_once("default")


async def test_old_models_are_trained_once_on_a_newer_interaction_with_an_unknown_item(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = TrainingOptions(interactions=walks(), recorded=len(walks().user))
    await living.build(living.corpus(TEXTS, 10), training=known)

    class Delisted(_Walkers):
        async def logged(self, collection: str) -> AsyncIterator[LoggedInteraction]:
            async for one in super().logged(collection):
                yield one
            yield LoggedInteraction("u000", "", "delisted", "view", 2_000_000_000_000_000, None)

    monkeypatch.setattr(living.log, "user_states", Delisted, raising=False)
    maintenance = _maintenance(living, releases="auto")
    assert await maintenance.run_once("default")
    # An hour later.
    monkeypatch.setattr("index_builder.releases.upkeep_builds._AGE_CHECK_S", 0.0)
    assert not await maintenance.run_once("default")


async def test_a_compaction_keeps_the_models_but_not_what_they_were_compared_with(
    living: Living,
) -> None:
    await living.build(living.corpus(TEXTS, 10), training=TrainingOptions(interactions=walks()))
    assert living.manifest.behaviour.comparisons
    await living.upsert("new", "New.")
    assert await _maintenance(living, share=0.0).run_once("default")
    assert "new" in living.texts() and living.manifest.behaviour.interactions
    assert not living.manifest.behaviour.comparisons


async def test_chores_go_on_while_a_collection_without_changes_is_built(tmp_path: Path) -> None:
    living = Living(tmp_path)
    await living.build(living.corpus(TEXTS, 10))
    maintenance = _maintenance(living)
    await maintenance.do_chores("default")
    async with maintenance._collections["default"].lock, asyncio.timeout(5):
        await maintenance.do_chores("default")


async def test_a_damaged_import_is_a_problem_of_the_training(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    await living.build(living.corpus(TEXTS, 10))
    monkeypatch.setattr(living.log, "user_states", _NoInteractions, raising=False)
    _import_walks(living)
    imported = ImportedInteractions(living.store, "default")
    (part,) = imported.parts("past").values()
    path = Path(living.options.store) / part.path
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-500])
    statuses = _Statuses()
    maintenance = _maintenance(living, first_training=1, statuses=statuses)
    with pytest.raises(SnapshotCorrupt):
        await _train_first(maintenance)
    assert "remove the file, and import it again" in statuses.told[-1].problem
    path.unlink()
    _import_walks(living)
    assert await maintenance.run_once("default")
    assert not statuses.told[-1].problem


async def test_a_first_training_waits_for_the_end_of_a_trial(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = living.corpus(TEXTS, 10)
    first = (await living.build(corpus)).snapshot_id
    await living.build(corpus)
    monkeypatch.setattr(living.log, "user_states", _Walkers, raising=False)
    aliases.split(living.store, "default", first, 0.1)
    maintenance = _maintenance(living, first_training=1)
    assert not await maintenance.run_once("default")
    aliases.end_split(living.store, "default")
    assert await _train_first(maintenance)


async def test_a_log_with_too_few_users_is_not_read_in_every_round(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    await living.build(living.corpus(TEXTS, 10))
    reads = []

    class Counting(_Walkers):
        def logged(self, collection: str) -> AsyncIterator[LoggedInteraction]:
            reads.append(collection)
            return super().logged(collection)

    monkeypatch.setattr(living.log, "user_states", Counting, raising=False)
    # The log has so many interactions, but one of them is of a session without a user.
    maintenance = _maintenance(living, first_training=len(walks().user) + 1)
    for _ in range(3):
        assert not await maintenance.run_once("default")
    assert reads == ["default"]


async def test_first_models_that_the_gate_refuses_do_not_serve_and_are_not_trained_at_once_again(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (await living.build(living.corpus(TEXTS, 10))).snapshot_id
    monkeypatch.setattr(living.log, "user_states", _Walkers, raising=False)
    failed = make_check("recall", False, "recall@10 is 0.5", "build again")
    monkeypatch.setitem(gate._CHECKS, "recall", lambda comparison: failed)
    maintenance = _maintenance(living, first_training=1)
    with pytest.raises(GateFailed, match=r"recall@10 is 0\.5"):
        await _train_first(maintenance)
    assert living.store.alias_in_force("default").current == before
    assert not await maintenance.run_once("default")


async def test_first_models_are_trained_although_the_last_compaction_was_refused(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    await living.build(living.corpus(TEXTS, 10))
    await living.upsert("new", "New.")
    maintenance = _maintenance(living, share=0.0, first_training=1)
    failed = make_check("recall", False, "recall@10 is 0.5", "build again")
    with monkeypatch.context() as patch, pytest.raises(GateFailed):
        patch.setitem(gate._CHECKS, "recall", lambda comparison: failed)
        await maintenance.run_once("default")
    monkeypatch.setattr(living.log, "user_states", _Walkers, raising=False)
    assert await _train_first(maintenance)
    assert living.store.alias_in_force("default").why.startswith("training: first models")
    assert "new" in living.texts()


async def test_a_rebuild_that_the_gate_refuses_is_not_proposed_nor_repeated(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (await living.build(living.corpus(TEXTS, 10))).snapshot_id
    failed = make_check("recall", False, "recall@10 is 0.5", "build again")
    monkeypatch.setitem(gate._CHECKS, "recall", lambda comparison: failed)
    maintenance = _maintenance(living, "drift", "drift again")
    with pytest.raises(GateFailed, match=r"recall@10 is 0\.5"):
        await maintenance.run_once("default")
    assert not read_proposals(living.store, "default")
    assert living.store.alias_in_force("default").current == before
    assert not await maintenance.run_once("default")
    # The refused snapshot is kept, to be examined.
    assert len(list(living.store.snapshot_ids("default"))) == 2


async def test_a_refused_rebuild_is_repeated_after_six_hours_only_if_something_is_new(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    await living.build(living.corpus(TEXTS, 10))
    reasons = [f"drift of {kind}: 0.4 is above 0.25" for kind in ("score", "score", "query")]
    maintenance = _maintenance(living, *reasons)
    ahead_s = 0.0
    now = time.monotonic
    monkeypatch.setattr(
        "index_builder.releases.failed_builds.time.monotonic", lambda: now() + ahead_s
    )
    with monkeypatch.context() as refusing:
        failed = make_check("recall", False, "recall@10 is 0.5", "build again")
        refusing.setitem(gate._CHECKS, "recall", lambda comparison: failed)
        with pytest.raises(GateFailed):
            await maintenance.run_once("default")
    ahead_s = 6 * 3_600.0
    assert not await maintenance.run_once("default")
    assert await maintenance.run_once("default")
    assert _proposed(living).reason == (
        "drift of query: 0.4 is above 0.25; the last refusal by the gate was of a build for "
        "another reason"
    )


async def test_a_build_that_fails_is_not_repeated_at_once_and_leaves_one_snapshot(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (await living.build(living.corpus(TEXTS, 10))).snapshot_id
    await living.upsert("new", "New.")

    def fail(comparison: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setitem(gate._CHECKS, "recall", fail)
    clock = 0.0
    monkeypatch.setattr("index_builder.releases.failed_builds.time.monotonic", lambda: clock)
    maintenance = _maintenance(living, share=0.0)
    for pause_s in (300, 600, 1_200):
        with pytest.raises(OSError, match="no space left"):
            await maintenance.run_once("default")
        assert len(list(living.store.snapshot_ids("default"))) == 2
        clock += pause_s - 1
        assert not await maintenance.run_once("default")
        clock += 1
    monkeypatch.undo()
    monkeypatch.setattr("index_builder.releases.failed_builds.time.monotonic", lambda: clock)
    assert await maintenance.run_once("default")
    # The failed one has gone: it would hold back the change log.
    assert set(living.store.snapshot_ids("default")) == {before, living.manifest.snapshot_id}


async def test_upkeep_asks_the_gate_and_does_not_repeat_a_refused_compaction(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (await living.build(living.corpus(TEXTS, 10))).snapshot_id
    failed = make_check("recall", False, "recall@10 is 0.5", "build again")
    monkeypatch.setitem(gate._CHECKS, "recall", lambda comparison: failed)
    await living.upsert("new", "New.")
    maintenance = _maintenance(living, share=0.0)
    with pytest.raises(GateFailed, match="refuses to serve it"):
        await maintenance.run_once("default")
    assert living.store.alias_in_force("default").current == before
    (refused,) = set(living.store.snapshot_ids("default")) - {before}
    assert not await maintenance.run_once("default")
    assert set(living.store.snapshot_ids("default")) == {before, refused}
    # With a reason it goes live, and the reason is recorded.
    forced = _maintenance(living, share=0.0, force_promote="we know it")
    assert await forced.run_once("default")
    record = living.store.alias_in_force("default")
    assert record.current not in (before, refused)
    assert (record.gate.passed, record.gate.forced_because) == (False, "we know it")


async def test_metrics_show_the_log_and_when_it_was_maintained(living: Living) -> None:
    await living.build(living.corpus(TEXTS, 10))
    await living.upsert("new", "New.")
    maintenance = _maintenance(living)

    def gauge(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(f"nearline_upkeep_{name}", labels)

    start_s = time.time()
    running = asyncio.create_task(maintenance.run())
    async with asyncio.timeout(20):
        while (gauge("round_timestamp_seconds") or 0.0) < start_s:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait((running,))
    assert (gauge("success_timestamp_seconds", collection="default") or 0.0) >= start_s
    assert gauge("pending_changes", collection="default") == 1
    assert gauge("log_changes", collection="default") == 1
    assert gauge("log_bytes", collection="default") == 100


async def test_a_collection_that_fails_is_not_shown_as_maintained(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    await living.build(living.corpus(TEXTS, 10))
    maintenance = _maintenance(living)

    async def fail() -> None:
        raise NotReady("Redis is away")

    upkeep_metrics.forget("default")
    monkeypatch.setattr(living.log, "state", fail)
    with pytest.raises(NotReady):
        await maintenance.do_chores("default")
    labels = {"collection": "default"}
    assert REGISTRY.get_sample_value("nearline_upkeep_success_timestamp_seconds", labels) is None

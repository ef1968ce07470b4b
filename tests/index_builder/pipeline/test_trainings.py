"""Upkeep trains models: the first ones, and newer ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from index_builder.options.training_options import TrainingOptions
from index_builder.pipeline.work_folder import NoDocuments
from index_builder.releases import gate
from index_builder.releases.gate_report import make_check
from nearline.contract import InteractionColumns
from nearline.errors import GateFailed, SnapshotCorrupt
from retrieval.snapshots import aliases
from retrieval.snapshots.proposals import read_proposals
from retrieval.users.importer import Importer
from retrieval.users.imports import ImportedInteractions
from retrieval.users.records import LoggedInteraction
from tests.index_builder.behaviour.circular_walks import walks
from tests.index_builder.behaviour.trained_snapshots import read_trained
from tests.index_builder.live_collection import Living
from tests.index_builder.pipeline.maintained_collection import (
    TEXTS,
    NoInteractions,
    Statuses,
    Users,
    Walkers,
    Walking,
    give_living,
    maintenance_of,
    proposal_of,
    train_first,
)
from tests.index_builder.releases.recorded_searches import record_drift

__all__ = ["give_living"]


async def test_a_rebuild_trains_on_interactions_recorded_since(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning = TrainingOptions(interactions=walks(), kind_weights={"view": 1.0})
    await living.build(living.corpus(TEXTS, 10), training=learning)
    before = living.manifest.behaviour.interactions
    monkeypatch.setattr(living.log, "user_states", Users, raising=False)
    record_drift(living.store)
    assert await maintenance_of(living).run_once("default")
    built = living.store.manifest("default", proposal_of(living).snapshot_id)
    assert built.behaviour.interactions == before + 1


async def test_old_models_are_trained_again_once_newer_interactions_were_recorded(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning = TrainingOptions(interactions=walks(), kind_weights={"view": 1.0})
    await living.build(living.corpus(TEXTS, 10), training=learning)
    monkeypatch.setattr(living.log, "user_states", NoInteractions, raising=False)
    assert not await maintenance_of(living).run_once("default")
    monkeypatch.setattr(living.log, "user_states", Users, raising=False)
    assert not await maintenance_of(living, models_age="0s").run_once("default")
    assert not await maintenance_of(living, models_age="100000d").run_once("default")
    assert await maintenance_of(living).run_once("default")
    assert "models know nothing newer than" in proposal_of(living).reason


async def test_first_models_are_trained_on_enough_recorded_interactions_and_served(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (await living.build(living.corpus(TEXTS, 10))).snapshot_id
    monkeypatch.setattr(living.log, "user_states", Walkers, raising=False)
    enough = len(walks().user)
    # The session without a user trains nothing.
    assert not await train_first(maintenance_of(living, first_training=enough + 1))
    assert not await train_first(maintenance_of(living, first_training=0))
    assert living.store.alias_in_force("default").current == before
    maintenance = maintenance_of(living, first_training=enough, releases="off")
    assert await train_first(maintenance)
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
    monkeypatch.setattr(living.log, "user_states", Walkers, raising=False)
    statuses = Statuses()
    maintenance = maintenance_of(living, first_training=1, statuses=statuses)
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
    assert await train_first(maintenance)
    assert (statuses.told[-1].progress, statuses.told[-1].problem) == ("", "")


async def test_models_are_trained_again_once_twice_as_many_interactions_were_recorded(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    await living.build(living.corpus(TEXTS, 10))
    maintenance = maintenance_of(living, first_training=1, releases="auto", models_age="0s")
    monkeypatch.setattr(living.log, "user_states", Walkers, raising=False)
    assert await train_first(maintenance)
    known = len(walks().user)
    assert living.manifest.behaviour.recorded == known
    assert not await maintenance.run_once("default")
    monkeypatch.setattr(living.log, "user_states", Walking, raising=False)
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
    monkeypatch.setattr(living.log, "user_states", Walkers, raising=False)
    assert await train_first(maintenance_of(living, first_training=1))
    assert living.manifest.behaviour.interactions == len(walks().user)


async def test_trainings_are_told_with_what_they_need_their_progress_and_their_failure(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    await living.build(living.corpus(TEXTS, 10))
    monkeypatch.setattr(living.log, "user_states", Walkers, raising=False)
    statuses, recorded = Statuses(), len(walks().user)
    short = maintenance_of(living, first_training=recorded + 5, statuses=statuses)
    assert not await short.run_once("default")
    (told,) = statuses.told
    # The log has an entry of a session, too, but as yet it was not read.
    assert (told.recorded, told.needed, told.trained) == (recorded + 1, recorded + 5, 0)
    failed = make_check("recall", False, "recall@10 is 0.5", "build again")
    with monkeypatch.context() as patch:
        patch.setitem(gate._CHECKS, "recall", lambda comparison: failed)
        with pytest.raises(GateFailed):
            await train_first(maintenance_of(living, first_training=1, statuses=statuses))
    assert "recall@10 is 0.5" in statuses.told[-1].problem and not statuses.told[-1].progress
    statuses.told.clear()
    maintenance = maintenance_of(living, first_training=1, models_age="0s", statuses=statuses)
    assert await train_first(maintenance)
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
    monkeypatch.setattr(living.log, "user_states", NoInteractions, raising=False)
    _import_walks(living)
    ImportedInteractions(living.store, "default").mark_deleted("u000", 3_000_000_000_000_000)
    enough = len(walks().user) - int((walks().user == walks().users.index("u000")).sum())
    assert not await train_first(maintenance_of(living, first_training=enough + 1))
    assert await train_first(maintenance_of(living, first_training=enough))
    assert living.manifest.behaviour.interactions == enough
    trained = read_trained(living.store)
    assert trained.had_by("u000") is None and trained.had_by("u001") is not None


async def test_old_models_are_not_trained_again_on_imports_that_are_no_newer(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = TrainingOptions(interactions=walks(), recorded=len(walks().user))
    await living.build(living.corpus(TEXTS, 10), training=known)
    monkeypatch.setattr(living.log, "user_states", NoInteractions, raising=False)
    _import_walks(living)
    assert not await maintenance_of(living).run_once("default")


async def test_old_models_are_trained_once_on_a_newer_interaction_with_an_unknown_item(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = TrainingOptions(interactions=walks(), recorded=len(walks().user))
    await living.build(living.corpus(TEXTS, 10), training=known)

    class Delisted(Walkers):
        async def logged(self, collection: str) -> AsyncIterator[LoggedInteraction]:
            async for one in super().logged(collection):
                yield one
            yield LoggedInteraction("u000", "", "delisted", "view", 2_000_000_000_000_000, None)

    monkeypatch.setattr(living.log, "user_states", Delisted, raising=False)
    maintenance = maintenance_of(living, releases="auto")
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
    assert await maintenance_of(living, share=0.0).run_once("default")
    assert "new" in living.texts() and living.manifest.behaviour.interactions
    assert not living.manifest.behaviour.comparisons


async def test_a_damaged_import_is_a_problem_of_the_training(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    await living.build(living.corpus(TEXTS, 10))
    monkeypatch.setattr(living.log, "user_states", NoInteractions, raising=False)
    _import_walks(living)
    imported = ImportedInteractions(living.store, "default")
    (part,) = imported.parts("past").values()
    path = Path(living.options.store) / part.path
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-500])
    statuses = Statuses()
    maintenance = maintenance_of(living, first_training=1, statuses=statuses)
    with pytest.raises(SnapshotCorrupt):
        await train_first(maintenance)
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
    monkeypatch.setattr(living.log, "user_states", Walkers, raising=False)
    aliases.split(living.store, "default", first, 0.1)
    maintenance = maintenance_of(living, first_training=1)
    assert not await maintenance.run_once("default")
    aliases.end_split(living.store, "default")
    assert await train_first(maintenance)


async def test_a_log_with_too_few_users_is_not_read_in_every_round(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    await living.build(living.corpus(TEXTS, 10))
    reads = []

    class Counting(Walkers):
        def logged(self, collection: str) -> AsyncIterator[LoggedInteraction]:
            reads.append(collection)
            return super().logged(collection)

    monkeypatch.setattr(living.log, "user_states", Counting, raising=False)
    # The log has so many interactions, but one of them is of a session without a user.
    maintenance = maintenance_of(living, first_training=len(walks().user) + 1)
    for _ in range(3):
        assert not await maintenance.run_once("default")
    assert reads == ["default"]


async def test_first_models_that_the_gate_refuses_do_not_serve_and_are_not_trained_at_once_again(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (await living.build(living.corpus(TEXTS, 10))).snapshot_id
    monkeypatch.setattr(living.log, "user_states", Walkers, raising=False)
    failed = make_check("recall", False, "recall@10 is 0.5", "build again")
    monkeypatch.setitem(gate._CHECKS, "recall", lambda comparison: failed)
    maintenance = maintenance_of(living, first_training=1)
    with pytest.raises(GateFailed, match=r"recall@10 is 0\.5"):
        await train_first(maintenance)
    assert living.store.alias_in_force("default").current == before
    assert not await maintenance.run_once("default")


async def test_first_models_are_trained_although_the_last_compaction_was_refused(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    await living.build(living.corpus(TEXTS, 10))
    await living.upsert("new", "New.")
    maintenance = maintenance_of(living, share=0.0, first_training=1)
    failed = make_check("recall", False, "recall@10 is 0.5", "build again")
    with monkeypatch.context() as patch, pytest.raises(GateFailed):
        patch.setitem(gate._CHECKS, "recall", lambda comparison: failed)
        await maintenance.run_once("default")
    monkeypatch.setattr(living.log, "user_states", Walkers, raising=False)
    assert await train_first(maintenance)
    assert living.store.alias_in_force("default").why.startswith("training: first models")
    assert "new" in living.texts()

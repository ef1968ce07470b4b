"""Maintenance proposes rebuilds after drift or age, and retrains existing models."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from index_builder.pipeline import upkeep_metrics
from index_builder.releases import gate
from index_builder.releases.gate_report import make_check
from nearline.errors import GateFailed, NotReady
from retrieval.snapshots import aliases
from retrieval.snapshots.gate_reports import require_gate_pass
from retrieval.snapshots.proposals import ProposalState, read_proposals
from tests.index_builder.live_collection import Living
from tests.index_builder.pipeline.maintained_collection import (
    TEXTS,
    give_living,
    maintenance_of,
    proposal_of,
)
from tests.index_builder.releases.recorded_searches import record_drift
from tests.waits import until

__all__ = ["give_living"]


async def test_a_rebuild_after_drift_is_proposed_with_changes_below_the_limit(
    living: Living,
) -> None:
    before = (await living.build(living.corpus(TEXTS, 10))).snapshot_id
    await living.upsert("new", "New.")
    record_drift(living.store)
    assert await maintenance_of(living).run_once("default")
    proposal = proposal_of(living)
    assert living.store.alias_in_force("default").current == before
    assert (proposal.state, proposal.current) == (ProposalState.OPEN, before)
    assert re.fullmatch(r"drift of scores: \d+\.\d\d is above 0\.25", proposal.reason)
    # The gate has passed it: the server accepts its promotion.
    verdict, _ = require_gate_pass(living.store, "default", proposal.snapshot_id)
    assert verdict.passed
    aliases.promote(living.store, "default", proposal.snapshot_id)
    assert "new" in living.texts()


async def test_no_second_rebuild_begins_while_a_proposal_is_open(living: Living) -> None:
    await living.build(living.corpus(TEXTS, 10))
    record_drift(living.store)
    maintenance = maintenance_of(living)
    assert await maintenance.run_once("default")
    assert not await maintenance.run_once("default")
    proposed = proposal_of(living).snapshot_id
    aliases.promote(living.store, "default", proposed)
    # Drift of the snapshot before is no reason to build the next one.
    assert not await maintenance.run_once("default")
    record_drift(living.store)
    # It is measured every ten minutes.
    assert not await maintenance.run_once("default")
    maintenance._collections["default"].rare_s = 0.0
    assert await maintenance.run_once("default")
    assert proposal_of(living).current == proposed


async def test_a_compaction_outdates_a_proposal_and_removes_it(living: Living) -> None:
    await living.build(living.corpus(TEXTS, 10))
    record_drift(living.store)
    assert await maintenance_of(living).run_once("default")
    proposed = proposal_of(living).snapshot_id
    await living.upsert("new", "New.")
    compacting = maintenance_of(living, share=0.0)
    assert await compacting.run_once("default")
    assert proposal_of(living).state is ProposalState.OUTDATED
    assert not await compacting.run_once("default")
    assert proposed not in living.store.snapshot_ids("default")
    assert not read_proposals(living.store, "default")


async def test_a_rebuild_waits_during_a_trial_and_without_compaction(
    living: Living,
) -> None:
    corpus = living.corpus(TEXTS, 10)
    first = (await living.build(corpus)).snapshot_id
    await living.build(corpus)
    record_drift(living.store)
    assert not await maintenance_of(living, compact=False).run_once("default")
    assert not await maintenance_of(living, releases="off").run_once("default")
    drift = REGISTRY.get_sample_value("nearline_upkeep_drift", {"collection": "default"})
    assert drift is not None and drift > 0.25
    aliases.split(living.store, "default", first, 0.1)
    maintenance = maintenance_of(living)
    assert not await maintenance.run_once("default")
    aliases.end_split(living.store, "default")
    assert await maintenance.run_once("default")


async def test_a_rebuild_serves_at_once_if_no_router_is_there_to_try_it(living: Living) -> None:
    before = (await living.build(living.corpus(TEXTS, 10))).snapshot_id
    record_drift(living.store)
    assert await maintenance_of(living, releases="auto").run_once("default")
    record = living.store.alias_in_force("default")
    assert record.current != before and record.why.startswith("rebuild: drift of scores")
    assert not read_proposals(living.store, "default")


async def test_chores_go_on_while_a_collection_without_changes_is_built(tmp_path: Path) -> None:
    living = Living(tmp_path)
    await living.build(living.corpus(TEXTS, 10))
    maintenance = maintenance_of(living)
    await maintenance.do_chores("default")
    async with maintenance._collections["default"].lock, asyncio.timeout(5):
        await maintenance.do_chores("default")


async def test_a_rebuild_that_the_gate_refuses_is_not_proposed_nor_repeated(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (await living.build(living.corpus(TEXTS, 10))).snapshot_id
    failed = make_check("recall", False, "recall@10 is 0.5", "build again")
    monkeypatch.setitem(gate._CHECKS, "recall", lambda comparison: failed)
    record_drift(living.store)
    maintenance = maintenance_of(living)
    with pytest.raises(GateFailed, match=r"recall@10 is 0\.5"):
        await maintenance.run_once("default")
    assert not read_proposals(living.store, "default")
    assert living.store.alias_in_force("default").current == before
    assert not await maintenance.run_once("default")
    # The refused snapshot is kept, to be examined.
    assert len(list(living.store.snapshot_ids("default"))) == 2


async def test_a_refused_rebuild_is_repeated_after_two_days(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    await living.build(living.corpus(TEXTS, 10))
    record_drift(living.store)
    maintenance = maintenance_of(living)
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
    ahead_s = 47 * 3_600.0
    assert not await maintenance.run_once("default")
    ahead_s = 48 * 3_600.0
    assert await maintenance.run_once("default")


async def test_recorded_requests_that_cannot_be_read_stop_no_other_chore(living: Living) -> None:
    await living.build(living.corpus(TEXTS, 10))
    record_drift(living.store)
    (path,) = Path(living.options.store).glob("default/traffic/*")
    path.chmod(0o600)
    path.write_bytes(b"torn")
    upkeep_metrics.forget("default")
    await maintenance_of(living).do_chores("default")
    labels = {"collection": "default"}
    assert REGISTRY.get_sample_value("nearline_upkeep_success_timestamp_seconds", labels)


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
    maintenance = maintenance_of(living, share=0.0)
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


async def test_failures_before_a_build_that_passed_make_no_later_pause_longer(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(comparison: object) -> None:
        raise OSError("no space left")

    await living.build(living.corpus(TEXTS, 10))
    clock = 0.0
    monkeypatch.setattr("index_builder.releases.failed_builds.time.monotonic", lambda: clock)
    maintenance = maintenance_of(living, share=0.0)
    for name in ("first", "second"):
        await living.upsert(name, "New.")
        with monkeypatch.context() as broken, pytest.raises(OSError, match="no space left"):
            broken.setitem(gate._CHECKS, "recall", fail)
            await maintenance.run_once("default")
        clock += 300
        assert await maintenance.run_once("default")


async def test_upkeep_asks_the_gate_and_does_not_repeat_a_refused_compaction(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (await living.build(living.corpus(TEXTS, 10))).snapshot_id
    failed = make_check("recall", False, "recall@10 is 0.5", "build again")
    monkeypatch.setitem(gate._CHECKS, "recall", lambda comparison: failed)
    await living.upsert("new", "New.")
    maintenance = maintenance_of(living, share=0.0)
    with pytest.raises(GateFailed, match="refuses to serve it"):
        await maintenance.run_once("default")
    assert living.store.alias_in_force("default").current == before
    (refused,) = set(living.store.snapshot_ids("default")) - {before}
    assert not await maintenance.run_once("default")
    assert set(living.store.snapshot_ids("default")) == {before, refused}
    # With a reason it goes live, and the reason is recorded.
    forced = maintenance_of(living, share=0.0, force_promote="we know it")
    assert await forced.run_once("default")
    record = living.store.alias_in_force("default")
    assert record.current not in (before, refused)
    assert (record.gate.passed, record.gate.forced_because) == (False, "we know it")


async def test_metrics_show_the_log_and_when_it_was_maintained(living: Living) -> None:
    await living.build(living.corpus(TEXTS, 10))
    await living.upsert("new", "New.")
    maintenance = maintenance_of(living)

    def gauge(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(f"nearline_upkeep_{name}", labels)

    start_s = time.time()
    running = asyncio.create_task(maintenance.run())
    await until(lambda: (gauge("round_timestamp_seconds") or 0.0) >= start_s, timeout_s=20)
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
    maintenance = maintenance_of(living)

    async def fail() -> None:
        raise NotReady("Redis is away")

    upkeep_metrics.forget("default")
    monkeypatch.setattr(living.log, "state", fail)
    with pytest.raises(NotReady):
        await maintenance.do_chores("default")
    labels = {"collection": "default"}
    assert REGISTRY.get_sample_value("nearline_upkeep_success_timestamp_seconds", labels) is None

"""Which snapshots may answer requests, by the reports of the gate in the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index_builder.releases.gate_report import GateReport, keep_report, make_check
from nearline.errors import GateFailed, NotFound, SnapshotCorrupt
from nearline.store.snapshot import Store
from retrieval.snapshots import aliases
from retrieval.snapshots.gate_reports import NOT_JUDGED, require_gate_pass
from tests.retrieval.small_snapshots import documents_of, write_snapshot


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def make(store: Store, *, promote: bool = False) -> str:
    return write_snapshot(
        Path(store.url), documents_of(np.ones((4, 4), np.float32)), promote=promote
    )


def judge(store: Store, snapshot_id: str, live_id: str, *, passes: bool = True) -> str:
    checks = [make_check("recall", passes, "recall is 0.9", "build again")]
    report = GateReport(
        collection="default",
        snapshot_id=snapshot_id,
        live_id=live_id,
        thresholds=3,
        checks=checks,
    )
    return keep_report(store, report)


def test_a_snapshot_without_a_report_is_refused_with_the_remedy(store: Store) -> None:
    make(store, promote=True)
    new = make(store)
    with pytest.raises(GateFailed, match=f"has not judged .*snapshots gate {new}.*--force --why"):
        require_gate_pass(store, "default", new)
    verdict, epoch = require_gate_pass(store, "default", new, "we know it")
    assert (verdict.passed, list(verdict.failed)) == (False, [NOT_JUDGED])
    assert (verdict.forced_because, epoch) == ("we know it", 1)
    with pytest.raises(GateFailed):
        require_gate_pass(store, "default", new, "  ")


def test_the_newest_report_decides(store: Store) -> None:
    live, new = make(store, promote=True), make(store)
    judge(store, new, live, passes=False)
    with pytest.raises(GateFailed, match=f"refuses snapshot {new}: recall; see .*{new}-1.json"):
        require_gate_pass(store, "default", new)
    path = judge(store, new, live)
    verdict, epoch = require_gate_pass(store, "default", new, "not needed")
    assert (verdict.passed, verdict.report, verdict.thresholds, epoch) == (True, path, 3, 1)
    assert not verdict.forced_because
    judge(store, new, live, passes=False)
    with pytest.raises(GateFailed):
        require_gate_pass(store, "default", new)
    verdict, _ = require_gate_pass(store, "default", new, "sale")
    assert (list(verdict.failed), verdict.forced_because) == (["recall"], "sale")


def test_a_report_against_another_snapshot_than_the_current_one_does_not_count(
    store: Store,
) -> None:
    first, new = make(store, promote=True), make(store)
    judge(store, new, first)
    require_gate_pass(store, "default", new)
    second = make(store, promote=True)
    with pytest.raises(GateFailed, match=f"against the current one, {second}: .* with {first}"):
        require_gate_pass(store, "default", new)
    verdict, _ = require_gate_pass(store, "default", new, "sale")
    assert not verdict.passed


def test_a_canary_keeps_the_verdict_of_its_trial(store: Store) -> None:
    make(store, promote=True)
    new = make(store)
    forced, _ = require_gate_pass(store, "default", new, "sale")
    aliases.split(store, "default", new, 0.1, gate=forced)
    verdict, epoch = require_gate_pass(store, "default", new)
    assert (verdict, epoch) == (forced, 2)
    aliases.end_split(store, "default")
    with pytest.raises(GateFailed):
        require_gate_pass(store, "default", new)


def test_a_trial_gives_its_verdict_to_its_canary_alone(store: Store) -> None:
    live, canary, other = make(store, promote=True), make(store), make(store)
    judge(store, canary, live)
    passed, _ = require_gate_pass(store, "default", canary)
    aliases.split(store, "default", canary, 0.1, gate=passed)
    with pytest.raises(GateFailed, match=f"has not judged snapshot {other}"):
        require_gate_pass(store, "default", other)
    assert require_gate_pass(store, "default", canary)[0] == passed


def test_an_unknown_snapshot_is_not_found_and_a_damaged_report_is_named(store: Store) -> None:
    live, new = make(store, promote=True), make(store)
    with pytest.raises(NotFound):
        require_gate_pass(store, "default", "20260101T000000Z-000000", "sale")
    path = judge(store, new, live)
    for damaged in ("{", "[" * 100_000):
        (Path(store.url) / path).write_text(damaged)
        with pytest.raises(SnapshotCorrupt, match=f"{path} cannot be read"):
            require_gate_pass(store, "default", new)

"""Reports of the gate in the store."""

from __future__ import annotations

from pathlib import Path

from index_builder.releases.gate_report import GateReport, keep_report, report_names
from nearline.store.snapshot import Store
from tests.nearline.store.overtaken import overtaken

ID = "20261125T004218Z-1f3a9c"


def test_a_report_of_a_concurrent_process_is_kept_and_precedes(tmp_path: Path) -> None:
    mine, other = (
        GateReport(collection="default", snapshot_id=ID, live_id=live, thresholds=0, checks=[])
        for live in ("mine", "other")
    )
    store = overtaken(tmp_path, lambda: keep_report(Store(tmp_path), other))
    path = keep_report(store, mine)
    assert path == f"default/gate/reports/{ID}-2.json"
    assert report_names(store, "default") == [path, f"default/gate/reports/{ID}-1.json"]
    assert b"mine" in store.files.read(path)
    assert b"other" in store.files.read(f"default/gate/reports/{ID}-1.json")

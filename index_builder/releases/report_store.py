"""Reports of the gate in the store, as JSON.

`retrieval.snapshots.gate_reports` describes the layout; the admin service reads it.
"""

from __future__ import annotations

import json

from index_builder.releases.gate_report import GateReport
from nearline.errors import AlreadyExists
from nearline.store.snapshot import Store
from retrieval.snapshots.gate_reports import newest_number, reports_folder


def keep_report(store: Store, report: GateReport) -> str:
    """Stores a report under the next number for its snapshot.

    Returns: Its path in the store.
    """
    folder = reports_folder(report.collection)
    while True:
        number = 1 + newest_number(store, report.collection, report.snapshot_id)
        path = f"{folder}/{report.snapshot_id}-{number}"
        data = json.dumps(report.record(), indent=2, ensure_ascii=False) + "\n"
        try:
            store.files.create(f"{path}.json", data.encode())
        except AlreadyExists:
            continue  # A concurrent process wrote this report.
        return f"{path}.json"


def report_names(store: Store, collection: str) -> list[str]:
    """Returns the paths of the reports in the store, newest snapshot first."""
    folder = reports_folder(collection)
    names = [name for name in store.files.names(folder) if name.endswith(".json")]
    return [f"{folder}/{name}" for name in reversed(names)]


def read_report(store: Store, path: str) -> dict[str, str]:
    """Returns the messages of a report's checks, by name. Raises: NotFound."""
    content = json.loads(store.files.read(path))
    return {one["check"]: one["message"] for one in content["checks"]}

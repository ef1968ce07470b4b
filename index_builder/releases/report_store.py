"""Reports of the gate in the store, as JSON and as a page.

Layout: <store>/<collection>/gate/reports/<snapshot id>-<n>.json, .html; only ever created.
"""

from __future__ import annotations

import json
import re

from index_builder.releases.gate_report import GateReport
from index_builder.releases.gate_report_page import render
from nearline.errors import AlreadyExists
from nearline.store.snapshot import Store, check_collection


def keep_report(store: Store, report: GateReport) -> str:
    """Stores a report under the next number for its snapshot.

    Returns: The path of the JSON form in the store; that of the page ends in .html instead.
    """
    folder = _folder(report.collection)
    ours = re.compile(rf"{re.escape(report.snapshot_id)}-([0-9]+)\.json")
    while True:
        matches = [ours.fullmatch(name) for name in store.files.names(folder)]
        number = 1 + max((int(match[1]) for match in matches if match), default=0)
        path = f"{folder}/{report.snapshot_id}-{number}"
        data = json.dumps(report.record(), indent=2, ensure_ascii=False) + "\n"
        try:
            store.files.create(f"{path}.json", data.encode())
        except AlreadyExists:
            continue  # A concurrent process wrote this report.
        store.files.create(f"{path}.html", render(report).encode())
        return f"{path}.json"


def report_names(store: Store, collection: str) -> list[str]:
    """Returns the paths of the JSON forms in the store, newest snapshot first."""
    folder = _folder(collection)
    names = [name for name in store.files.names(folder) if name.endswith(".json")]
    return [f"{folder}/{name}" for name in reversed(names)]


def read_report(store: Store, path: str) -> dict[str, str]:
    """Returns the messages of a report's checks, by name. Raises: NotFound."""
    content = json.loads(store.files.read(path))
    return {one["check"]: one["message"] for one in content["checks"]}


def _folder(collection: str) -> str:
    return f"{check_collection(collection)}/gate/reports"

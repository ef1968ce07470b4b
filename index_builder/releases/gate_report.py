"""Checks of the gate, and the report of their results, which is kept in the store as JSON.

`retrieval.snapshots.gate_reports` describes the layout; the admin service reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum

from nearline.errors import AlreadyExists
from nearline.store.snapshot import Store
from nearline.v1 import release_pb2
from retrieval.snapshots.gate_reports import newest_number, reports_folder


class CheckOutcome(Enum):
    """The outcome of a check."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The result of one check.

    value, limit: Measured and allowed value; None if there is no number.
    message: The finding; for a failed check also the remedy, for a skipped check the reason.
    """

    name: str
    outcome: CheckOutcome
    message: str
    value: float | None = None
    limit: float | None = None

    def record(self) -> dict[str, object]:
        """Returns the check as a JSON object."""
        return {
            "check": self.name,
            "outcome": self.outcome.value,
            "value": None if self.value is None else round(self.value, 4),
            "limit": self.limit,
            "message": self.message,
        }


class SkippedCheck(Exception):
    """Raised by a check that cannot be run; the message gives the reason."""


def skip_check(name: str, why: str) -> Check:
    """Returns a check that could not be run."""
    return Check(name=name, outcome=CheckOutcome.SKIPPED, message=why)


def make_check(
    name: str,
    ok: bool,
    found: str,
    remedy: str = "",
    value: float | None = None,
    limit: float | None = None,
) -> Check:
    """Returns a check that was run.

    Args:
        ok: Whether it passed.
        found: The finding.
        remedy: What to do if it failed.
        value, limit: See `Check`.
    """
    outcome = CheckOutcome.PASSED if ok else CheckOutcome.FAILED
    message = found if ok else f"{found}; {remedy}"
    return Check(name=name, outcome=outcome, message=message, value=value, limit=limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """The gate's verdict on a snapshot.

    live_id: The snapshot it was compared with; empty if there was none.
    thresholds: Number of the thresholds used; 0 for the defaults.
    requests: Number of requests answered by both.
    source: Where the requests come from, as text.
    left_out: Requests that could not be sent, by reason.
    """

    collection: str
    snapshot_id: str
    live_id: str
    thresholds: int
    checks: Sequence[Check]
    requests: int = 0
    source: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    time: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def failed(self) -> Sequence[Check]:
        """The checks that failed."""
        return [one for one in self.checks if one.outcome is CheckOutcome.FAILED]

    @property
    def passed(self) -> bool:
        """Whether the snapshot may go live: no check failed."""
        return not self.failed

    def outcome(self, name: str) -> CheckOutcome:
        """Returns the outcome of a check. Raises: KeyError: there is no check of that name."""
        return {one.name: one.outcome for one in self.checks}[name]

    def verdict(self, path: str = "", forced_because: str = "") -> release_pb2.GateVerdict:
        """Returns a summary for the alias record.

        Args:
            path: Path of the report in the store.
            forced_because: Reason to promote despite a failed gate; ignored if it passed.
        """
        return release_pb2.GateVerdict(
            passed=self.passed,
            failed=[one.name for one in self.failed],
            forced_because="" if self.passed else forced_because,
            thresholds=self.thresholds,
            report=path,
        )

    def record(self) -> dict[str, object]:
        """Returns the report as a JSON object."""
        return {
            "collection": self.collection,
            "snapshot_id": self.snapshot_id,
            "live_id": self.live_id,
            "time": self.time.isoformat(timespec="seconds"),
            "passed": self.passed,
            "failed": [one.name for one in self.failed],
            "thresholds": self.thresholds,
            "requests": self.requests,
            "source": self.source,
            "left_out": dict(self.left_out),
            "seconds": round(self.seconds, 2),
            "checks": [one.record() for one in self.checks],
        }


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

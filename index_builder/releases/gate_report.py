"""What the gate finds: checks, and the report that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum

from nearline.v1 import release_pb2


class CheckOutcome(Enum):
    """What became of a check."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at.

    value, limit: What was found and what is allowed; None: it is no number.
    message: What was found, in words; of a check that failed also what to do, of one that was
    skipped why it could not be made.
    """

    name: str
    outcome: CheckOutcome
    message: str
    value: float | None = None
    limit: float | None = None

    def record(self) -> dict[str, object]:
        """Returns it as one JSON object."""
        return {
            "check": self.name,
            "outcome": self.outcome.value,
            "value": None if self.value is None else round(self.value, 4),
            "limit": self.limit,
            "message": self.message,
        }


def skip_check(name: str, why: str) -> Check:
    """Returns a check that could not be made."""
    return Check(name=name, outcome=CheckOutcome.SKIPPED, message=why)


def make_check(
    name: str,
    ok: bool,
    found: str,
    remedy: str = "",
    value: float | None = None,
    limit: float | None = None,
) -> Check:
    """Returns a check that was made.

    Args:
        ok: Whether it passed.
        found: What was found, in words.
        remedy: What to do about it, where it did not pass.
        value, limit: See `Check`.
    """
    outcome = CheckOutcome.PASSED if ok else CheckOutcome.FAILED
    message = found if ok else f"{found}; {remedy}"
    return Check(name=name, outcome=outcome, message=message, value=value, limit=limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotSamples:
    """What the plots of a report show, one entry per request that both snapshots answered.

    overlap: Share of the best in common. best: Best scores, of the candidate and of the live one;
    a request that found nothing has no entry. latency_ms: Of both, likewise.
    """

    overlap: Sequence[float] = ()
    best: tuple[Sequence[float], Sequence[float]] = ((), ())
    latency_ms: tuple[Sequence[float], Sequence[float]] = ((), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """What the gate says of a snapshot.

    live_id: What it was compared with; empty: nothing.
    thresholds: Number of those it was judged by; 0: the defaults.
    requests: How many requests were answered by both. source: where they are from, in words.
    left_out: Requests that could not be asked again, by reason.
    """

    collection: str
    snapshot_id: str
    live_id: str
    thresholds: int
    checks: Sequence[Check]
    requests: int = 0
    source: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)
    seen: PlotSamples = PlotSamples()
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
        """Returns what became of a check. Raises: KeyError: there is none of that name."""
        return {one.name: one.outcome for one in self.checks}[name]

    def verdict(self, path: str = "", forced_because: str = "") -> release_pb2.GateVerdict:
        """Returns it in short, for the alias record.

        Args:
            path: Where the report lies in the store.
            forced_because: Why it goes live all the same; left out where it passed.
        """
        return release_pb2.GateVerdict(
            passed=self.passed,
            failed=[one.name for one in self.failed],
            forced_because="" if self.passed else forced_because,
            thresholds=self.thresholds,
            report=path,
        )

    def record(self) -> dict[str, object]:
        """Returns it as one JSON object, without what only the plots need."""
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

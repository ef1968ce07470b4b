"""Renders a gate report as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from index_builder.releases.gate_report import Check, CheckOutcome, GateReport
from index_builder.reports.html import figures, page, table
from index_builder.reports.plots import histogram, quantiles, two_histograms

_MARKS = {
    CheckOutcome.PASSED: "passed",
    CheckOutcome.FAILED: "FAILED",
    CheckOutcome.SKIPPED: "skipped",
}


def render(report: GateReport) -> str:
    """Returns the page."""
    verdict = "may go live" if report.passed else "is refused"
    against = f"against <code>{escape(report.live_id)}</code>" if report.live_id else "alone"
    counts = {
        outcome: sum(one.outcome is outcome for one in report.checks) for outcome in CheckOutcome
    }
    return page(
        f"{report.collection}: gate of {report.snapshot_id}",
        [
            f"<h1>{escape(report.collection)}: the snapshot {verdict}</h1>",
            f"<p><code>{escape(report.snapshot_id)}</code>, judged {against} on "
            f"{report.time:%Y-%m-%d %H:%M} UTC, by {_thresholds(report)}</p>",
            figures((f"{count}", f"checks {one.value}") for one, count in counts.items()),
            *(_failed(report.failed)),
            "<h2>All checks</h2>",
            _checks(report.checks),
            *_plots(report),
            *_left_out(report),
        ],
    )


def number(value: float | None) -> str:
    """Returns a value or limit as text; empty if it is None."""
    if value is None:
        return ""
    return f"{value:,.4g}" if abs(value) >= 1 else f"{value:.4f}"


def _thresholds(report: GateReport) -> str:
    return f"thresholds {report.thresholds}" if report.thresholds else "the default thresholds"


def _failed(failed: Sequence[Check]) -> Iterator[str]:
    if failed:
        yield "<h2>Failed checks</h2>"
        yield table((one.name, one.message) for one in failed)


def _checks(checks: Sequence[Check]) -> str:
    rows = (
        (one.name, _MARKS[one.outcome], number(one.value), number(one.limit), one.message)
        for one in checks
    )
    return table(rows, ("check", "outcome", "value", "limit", "finding"))


def _plots(report: GateReport) -> Iterator[str]:
    samples = report.samples
    if not samples.overlap:
        return
    yield "<h2>Comparison with the live snapshot</h2>"
    yield f"<p>{report.requests:,} {report.source} requests.</p>"
    yield histogram(samples.overlap, "share of the ten best results in common", low=0.0, high=1.0)
    if any(samples.best):
        yield two_histograms(*samples.best, "best score")
    yield quantiles(*samples.latency_ms, "latency in ms, by rank")


def _left_out(report: GateReport) -> Iterator[str]:
    if report.left_out:
        yield "<h2>Requests that could not be sent</h2>"
        yield table((reason, f"{count:,}") for reason, count in report.left_out.items())

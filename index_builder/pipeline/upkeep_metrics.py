"""Prometheus metrics of upkeep: whether it runs, and what it maintains."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from retrieval.changelog.change_log import LogState

round_time = Gauge(
    "nearline_upkeep_round_timestamp_seconds",
    "End of the last round over all collections, in seconds since 1970; 0 before the first one.",
)
success_time = Gauge(
    "nearline_upkeep_success_timestamp_seconds",
    "Time at which the change log of a collection was last maintained without an error (archived, "
    "compacted if due, and trimmed), in seconds since 1970.",
    ("collection",),
)
pending_changes = Gauge(
    "nearline_upkeep_pending_changes",
    "Live changes that the current snapshot lacks, when upkeep last looked.",
    ("collection",),
)
log_changes = Gauge(
    "nearline_upkeep_log_changes",
    "Changes in the change log in Redis, when upkeep last looked.",
    ("collection",),
)
log_bytes = Gauge(
    "nearline_upkeep_log_bytes",
    "Memory of the change log in Redis, estimated by Redis when upkeep last looked.",
    ("collection",),
)
# States of proposals that an alert counts.
ALERTING = ("refused", "rejected")
proposals = Counter(
    "nearline_upkeep_proposals_total",
    "Snapshots built after drift or age, by what became of them: open, refused (by the gate), "
    "on trial, promoted, rejected, outdated.",
    ("collection", "state"),
)
proposal_age = Gauge(
    "nearline_upkeep_proposal_age_seconds",
    "Age of the snapshot that waits for promotion; 0 if none does.",
    ("collection",),
)


def show_log(collection: str, state: LogState, size_bytes: int) -> None:
    """Exports the extent of a change log."""
    log_changes.labels(collection).set(sum(state.head.positions) - sum(state.trimmed.positions))
    log_bytes.labels(collection).set(size_bytes)


def forget(collection: str) -> None:
    """Removes the metrics of a collection that is gone: they would keep alerts firing."""
    for gauge in (success_time, pending_changes, log_changes, log_bytes, proposal_age):
        gauge.remove_by_labels({"collection": collection})

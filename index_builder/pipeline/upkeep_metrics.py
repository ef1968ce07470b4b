"""Prometheus metrics of upkeep: whether it runs, and what it maintains."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from retrieval.trends.trend_follower import Progress

round_time = Gauge(
    "nearline_upkeep_round_timestamp_seconds",
    "End of the last round over all collections, in seconds since 1970; 0 before the first one.",
)
success_time = Gauge(
    "nearline_upkeep_success_timestamp_seconds",
    "Time at which the change log of a collection was last archived and trimmed without an error, "
    "and no build of it was running, in seconds since 1970.",
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
drift = Gauge(
    "nearline_upkeep_drift",
    "Population stability index of the best scores of recorded searches: the newest ones against "
    "the first ones of the current snapshot; 0 until 400 are recorded.",
    ("collection",),
)
# Kinds and outcomes of builds.
KINDS = ("compaction", "training", "rebuild")
OUTCOMES = ("passed", "refused", "failed")
builds = Counter(
    "nearline_upkeep_builds_total",
    "Builds of a compaction, a first training or a rebuild that passed the release gate, were "
    "refused by it, or failed before.",
    ("collection", "kind", "outcome"),
)
failed_builds = Gauge(
    "nearline_upkeep_failed_builds",
    "Builds of a compaction, a first training or a rebuild that failed or were refused in a row; 0 "
    "after one that passed.",
    ("collection", "kind"),
)
proposals = Counter(
    "nearline_upkeep_proposals_total",
    "Rebuilt snapshots that passed the release gate, by what became of them: open, on trial, "
    "promoted, rejected, outdated.",
    ("collection", "state"),
)
proposal_age = Gauge(
    "nearline_upkeep_proposal_age_seconds",
    "Age of the snapshot that waits for promotion; 0 if none does.",
    ("collection",),
)
trends_lag = Gauge(
    "nearline_upkeep_trends_lag_seconds",
    "Age of the oldest new interaction when it was counted in the trends; 0 without new ones.",
    ("collection",),
)
trends_rows = Gauge(
    "nearline_upkeep_trends_interactions",
    "Interactions in memory from which trends are counted.",
    ("collection",),
)
_OF_COLLECTIONS = (
    success_time,
    pending_changes,
    log_changes,
    log_bytes,
    drift,
    builds,
    failed_builds,
    proposals,
    proposal_age,
    trends_lag,
    trends_rows,
)


def show(collection: str, pending: int, kept: int, size_bytes: int) -> None:
    """Exports the extent of a change log, and the changes that the current snapshot lacks."""
    pending_changes.labels(collection).set(pending)
    log_changes.labels(collection).set(kept)
    log_bytes.labels(collection).set(size_bytes)
    for kind in KINDS:
        for outcome in OUTCOMES:
            # Prometheus sees an increase only of a series that it knew before.
            builds.labels(collection, kind, outcome)


def show_trends(collection: str, progress: Progress) -> None:
    """Exports how far the trends of a collection have been counted."""
    trends_lag.labels(collection).set(progress.lag_s)
    trends_rows.labels(collection).set(progress.rows)


def count_build(collection: str, kind: str, outcome: str, failures: int = 0) -> None:
    """Counts a build.

    Args:
        kind: One of KINDS. outcome: One of OUTCOMES.
        failures: Failures in a row, with this one; 0 if it passed.
    """
    builds.labels(collection, kind, outcome).inc()
    failed_builds.labels(collection, kind).set(failures)


def forget(collection: str) -> None:
    """Removes the metrics of a collection that is gone: they would keep alerts firing."""
    for one in _OF_COLLECTIONS:
        one.remove_by_labels({"collection": collection})

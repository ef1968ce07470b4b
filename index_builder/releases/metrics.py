"""Prometheus metrics of the snapshots that upkeep proposes."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

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

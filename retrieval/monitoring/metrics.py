"""Prometheus metrics of those who watch a router."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram, Summary

online_recall = Histogram(
    "nearline_retrieval_online_recall",
    "Share of the exact 10 best that the index found for a sampled search, by arm (empty: no "
    "snapshot is tried) and shape of its filter.",
    ("collection", "arm", "filter"),
    buckets=(0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)
online_recall_mean = Gauge(
    "nearline_retrieval_online_recall_mean",
    "Mean of that over the last 500 sampled searches of the snapshot that answers.",
    ("collection", "arm"),
)
shard_recall = Summary(
    "nearline_retrieval_online_shard_recall",
    "Share of the exact 10 best that lie in a shard, of a sampled search, which the index found.",
    ("collection", "arm", "shard"),
)
recall_skipped = Counter(
    "nearline_retrieval_recall_skipped_total",
    "Sampled searches that were not done again exactly: full (too many wait), gone (the snapshot "
    "is), changed (live changes came between), partial (a shard did not answer), unsupported (the "
    "backend cannot search exactly), failed.",
    ("collection", "reason"),
)
recorded = Counter(
    "nearline_retrieval_recorded_requests_total",
    "Sampled requests by outcome: written, dropped (too many wait), failed (the store refused).",
    ("collection", "outcome"),
)
query_drift = Gauge(
    "nearline_retrieval_query_drift",
    "How far sampled queries are from those of a baseline (golden: of the build, first: after "
    "the snapshot went live): direction, 1 - cosine of mean vectors; energy, energy distance.",
    ("collection", "baseline", "measure"),
)
score_drift = Gauge(
    "nearline_retrieval_score_drift",
    "Population stability index of best scores of sampled searches against those of a baseline.",
    ("collection", "baseline"),
)
item_drift = Gauge(
    "nearline_retrieval_item_drift",
    "Share of the snapshot's chunks that live changes hid or added to, 0 at first.",
    ("collection",),
)
golden_shift = Gauge(
    "nearline_retrieval_golden_score_shift",
    "Mean best score of golden queries now, less the same when the snapshot was built: live "
    "changes brought what is better, or took what was best; a graph that misses it counts, too.",
    ("collection",),
)
popularity_drift = Gauge(
    "nearline_retrieval_popularity_drift",
    "Jensen-Shannon divergence in bits, 0..1, of recorded interactions from the popularity that "
    "the snapshot learned, over its 1,000 most popular items and the rest.",
    ("collection",),
)
rebuilds_asked = Counter(
    "nearline_retrieval_drift_rebuilds_total",
    "Times that a rebuild was asked for, since a drift stayed above its limit.",
    ("collection", "drift"),
)

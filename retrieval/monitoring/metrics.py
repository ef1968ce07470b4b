"""Prometheus metrics of the monitors of a router."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram, Summary

from retrieval.protocols.metrics import forget_with_collection

online_recall = Histogram(
    "nearline_retrieval_online_recall",
    "Recall@10 of a sampled search against an exact search, by arm (empty without a canary) and "
    "shape of its filter.",
    ("collection", "arm", "filter"),
    buckets=(0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)
online_recall_mean = Gauge(
    "nearline_retrieval_online_recall_mean",
    "Mean recall@10 of the last 500 sampled searches of the current snapshot.",
    ("collection", "arm"),
)
shard_recall = Summary(
    "nearline_retrieval_online_shard_recall",
    "Recall of a sampled search for those of the exact 10 best hits that are in a shard.",
    ("collection", "arm", "shard"),
)
recall_skipped = Counter(
    "nearline_retrieval_recall_skipped_total",
    "Sampled searches that were not compared with an exact search: full (the queue was full), gone "
    "(the snapshot was released), changed (live changes intervened), partial (a shard did not "
    "answer), unsupported (the backend has no exact search), failed.",
    ("collection", "reason"),
)
recorded = Counter(
    "nearline_retrieval_recorded_requests_total",
    "Sampled requests by outcome: written, dropped (queue full), failed (store failed).",
    ("collection", "outcome"),
)
forget_with_collection(online_recall_mean)

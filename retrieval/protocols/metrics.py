"""Prometheus metrics of routers and shards; label sets are resolved once, not per request."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (
    *(0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512),
    *(1, 2, 4, 8, 16),
)

stage_seconds = Histogram(
    "nearline_retrieval_stage_seconds",
    "Time of one stage of a request: embed or search.",
    ("collection", "stage"),
    buckets=_SECONDS,
)
batch_vectors = Histogram(
    "nearline_retrieval_batch_vectors",
    "Vectors that went to a shard together.",
    ("collection", "shard"),
    buckets=(1, 2, 4, 8, 16, 32, 64),
)
partial_answers = Counter(
    "nearline_retrieval_partial_answers_total",
    "Answers that missed at least one shard.",
    ("collection",),
)
shard_failures = Counter(
    "nearline_retrieval_shard_failures_total",
    "Answers of a shard that failed or came too late, by error class.",
    ("collection", "shard", "reason"),
)
shard_vectors = Gauge(
    "nearline_retrieval_shard_vectors", "Vectors loaded.", ("collection", "shard")
)
epoch_in_force = Gauge(
    "nearline_retrieval_epoch", "Number of the alias record served.", ("collection",)
)
replica_ready = Gauge(
    "nearline_retrieval_replica_ready",
    "1 while a shard server answers and is not ejected.",
    ("replica",),
)
ejections = Counter(
    "nearline_retrieval_replica_ejections_total",
    "Times that a shard server was not asked for a while: errors, slow or silent.",
    ("replica", "reason"),
)
retries = Counter(
    "nearline_retrieval_retries_total",
    "Calls to a second replica after one failed; outcome refused: no budget.",
    ("collection", "shard", "outcome"),
)
hedges = Counter(
    "nearline_retrieval_hedges_total",
    "Calls to a second replica beside a slow one: won, lost, or refused: no budget.",
    ("collection", "shard", "outcome"),
)
snapshot_retries = Counter(
    "nearline_retrieval_snapshot_retries_total",
    "Requests asked whole once more, since a shard had let go of their snapshot.",
    ("collection",),
)
snapshots_held = Gauge(
    "nearline_retrieval_snapshots", "Snapshots loaded: in force or draining.", ("collection",)
)
snapshot_failures = Counter(
    "nearline_retrieval_snapshot_failures_total",
    "Snapshots that an alias named and that could not be got ready, by error class.",
    ("collection", "reason"),
)
snapshot_prepare_seconds = Histogram(
    "nearline_retrieval_snapshot_prepare_seconds",
    "Time from starting to load a snapshot until it is ready.",
    ("collection",),
    buckets=(0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000),
)
rollout_share = Gauge(
    "nearline_retrieval_rollout_share",
    "Share of requests that a canary answers here; 0: none does.",
    ("collection",),
)
rollout_evidence = Gauge(
    "nearline_retrieval_rollout_evidence",
    "Evidence against a canary by test, as a share of what backs it out.",
    ("collection", "test"),
)
rollout_backouts = Counter(
    "nearline_retrieval_rollout_backouts_total",
    "Canaries that this router backed out, by the test that broke.",
    ("collection", "reason"),
)
writes = Counter(
    "nearline_retrieval_writes_total",
    "Items that were to be changed, by outcome.",
    ("collection", "outcome"),
)
write_seconds = Histogram(
    "nearline_retrieval_write_seconds",
    "Time of a request to change items until all of it is durable.",
    ("collection",),
    buckets=_SECONDS,
)
changes_applied = Counter(
    "nearline_retrieval_changes_applied_total",
    "Changes of the log applied to shards here; again where a snapshot is loaded or rebuilt.",
    ("collection",),
)
changes_behind = Gauge(
    "nearline_retrieval_changes_behind",
    "Changes in the log that are not applied here, as far as is known.",
    ("collection",),
)
change_lag_seconds = Gauge(
    "nearline_retrieval_change_lag_seconds",
    "Age of the oldest change that has been read and not applied; 0: there is none.",
    ("collection",),
)
oldest_change_seconds = Gauge(
    "nearline_retrieval_oldest_change_seconds",
    "Age of the oldest change that the snapshot in force does not have; 0: it has all.",
    ("collection",),
)
live_rows = Gauge(
    "nearline_retrieval_live_rows",
    "Chunks beside the snapshot: served, dead (replaced, and still in memory), or hidden of it.",
    ("collection", "state"),
)
log_away_seconds = Gauge(
    "nearline_retrieval_log_away_seconds",
    "Time for which live changes have not been followed; 0: they are.",
    ("collection",),
)
changes_refused = Counter(
    "nearline_retrieval_changes_refused_total",
    "Changes of the log that Milvus cannot hold, so that it keeps the item as it was.",
    ("collection",),
)
delta_rebuilds = Counter(
    "nearline_retrieval_delta_rebuilds_total",
    "Times that live changes were applied again from the snapshot on, since the log was set back.",
    ("collection",),
)
chunks_embedded = Counter(
    "nearline_retrieval_chunks_embedded_total",
    "Chunks of changes embedded here, since they came without vectors of the snapshot's model.",
    ("collection",),
)
hot_reads = Counter(
    "nearline_retrieval_hot_reads_total",
    "Hot lists given, by where they came from: near (this process), redis, live (computed), or "
    "stale: past their time, and being refreshed.",
    ("collection", "level"),
)
hot_computations = Counter(
    "nearline_retrieval_hot_computations_total",
    "Hot lists computed: made, absent (no such item), or failed.",
    ("collection", "outcome"),
)
hot_early_refreshes = Counter(
    "nearline_retrieval_hot_early_refreshes_total",
    "Hot lists refreshed before their time, so that not all who ask find them stale at once.",
    ("collection",),
)
hot_redis_failures = Counter(
    "nearline_retrieval_hot_redis_failures_total",
    "Times that Redis failed or was too slow to give or take a hot list; each leaves it alone for "
    "a second.",
)

"""Prometheus metrics of routers and shards; callers resolve labels once, not per request."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (
    *(0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512),
    *(1, 2, 4, 8, 16),
)

stage_seconds = Histogram(
    "nearline_retrieval_stage_seconds",
    "Duration of a stage of a request: embed or search.",
    ("collection", "stage"),
    buckets=_SECONDS,
)
batch_vectors = Histogram(
    "nearline_retrieval_batch_vectors",
    "Vectors in a batch sent to a shard.",
    ("collection", "shard"),
    buckets=(1, 2, 4, 8, 16, 32, 64),
)
thread_wait_seconds = Histogram(
    "nearline_retrieval_thread_wait_seconds",
    "Time that a batch of searches waited for a thread.",
    buckets=(0.001, 0.004, 0.016, 0.064, 0.256, 1, 4, 16),
)
gpu_up = Gauge(
    "nearline_retrieval_gpu_up",
    "1 while a GPU answers, 0 while the CPU stands in.",
    ("device",),
)
gpu_batch_queries = Histogram(
    "nearline_retrieval_gpu_batch_queries",
    "Queries in a call of a GPU.",
    ("device",),
    buckets=(1, 4, 16, 64, 256, 1024),
)
gpu_fallbacks = Counter(
    "nearline_retrieval_gpu_fallbacks_total",
    "Searches that the CPU answered because a GPU failed.",
    ("collection", "shard"),
)
embedder_ready = Gauge(
    "nearline_retrieval_embedder_ready",
    "1 while an embedding service answers, as far as calls and checks have shown.",
    ("replica",),
)
embedder_retries = Counter(
    "nearline_retrieval_embedder_retries_total",
    "Calls repeated on another embedding service of the model, by outcome: made, or refused (no "
    "budget).",
    ("outcome",),
)
lexical_fallbacks = Counter(
    "nearline_retrieval_lexical_fallbacks_total",
    "Requests whose texts were searched by their words alone, since no embedding service answered, "
    "by error class.",
    ("collection", "reason"),
)
rerank_failures = Counter(
    "nearline_retrieval_rerank_failures_total",
    "Searches whose hits were not reranked, since the reranker did not answer, by error class.",
    ("collection", "reason"),
)
partial_answers = Counter(
    "nearline_retrieval_partial_answers_total",
    "Answers that lack at least one shard.",
    ("collection",),
)
unknown_items = Counter(
    "nearline_retrieval_unknown_item_interactions_total",
    "Recorded interactions with an item that the collection does not have.",
    ("collection",),
)
shard_failures = Counter(
    "nearline_retrieval_shard_failures_total",
    "Failed or late answers of a shard, by error class.",
    ("collection", "shard", "reason"),
)
shard_vectors = Gauge(
    "nearline_retrieval_shard_vectors", "Vectors loaded.", ("collection", "shard")
)
epoch_in_force = Gauge(
    "nearline_retrieval_epoch",
    "Epoch (number of the alias record) that is served.",
    ("collection",),
)
snapshot_created = Gauge(
    "nearline_retrieval_snapshot_created_timestamp_seconds",
    "Time at which the snapshot that is served was built, in seconds since 1970.",
    ("collection",),
)
replica_ready = Gauge(
    "nearline_retrieval_replica_ready",
    "1 while a shard server is reachable and not ejected.",
    ("replica",),
)
ejections = Counter(
    "nearline_retrieval_replica_ejections_total",
    "Ejections of a shard server from load balancing, by reason: errors, slow or silent.",
    ("replica", "reason"),
)
retries = Counter(
    "nearline_retrieval_retries_total",
    "Retries on another replica after a failure, by outcome: made, or refused (no budget).",
    ("collection", "shard", "outcome"),
)
hedges = Counter(
    "nearline_retrieval_hedges_total",
    "Hedged calls to another replica, by outcome: won, lost, or refused (no budget).",
    ("collection", "shard", "outcome"),
)
snapshot_retries = Counter(
    "nearline_retrieval_snapshot_retries_total",
    "Requests retried as a whole because a shard had released their snapshot.",
    ("collection",),
)
snapshots_held = Gauge(
    "nearline_retrieval_snapshots", "Snapshots loaded: current or draining.", ("collection",)
)
snapshot_failures = Counter(
    "nearline_retrieval_snapshot_failures_total",
    "Snapshots that an alias names and that could not be prepared, by error class.",
    ("collection", "reason"),
)
snapshot_prepare_seconds = Histogram(
    "nearline_retrieval_snapshot_prepare_seconds",
    "Time from the start of loading a snapshot until it is ready.",
    ("collection",),
    buckets=(0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000),
)
rollout_share = Gauge(
    "nearline_retrieval_rollout_share",
    "Share of requests that a canary answers here; 0 without a canary.",
    ("collection",),
)
rollout_evidence = Gauge(
    "nearline_retrieval_rollout_evidence",
    "Evidence against a canary by test, as a share of the limit that backs it out.",
    ("collection", "test"),
)
rollout_backouts = Counter(
    "nearline_retrieval_rollout_backouts_total",
    "Canaries that this router backed out, by the test that failed.",
    ("collection", "reason"),
)
writes = Counter(
    "nearline_retrieval_writes_total",
    "Writes of items, by outcome.",
    ("collection", "outcome"),
)
write_seconds = Histogram(
    "nearline_retrieval_write_seconds",
    "Duration of a write request until all its changes are durable.",
    ("collection",),
    buckets=_SECONDS,
)
changes_applied = Counter(
    "nearline_retrieval_changes_applied_total",
    "Changes of the log applied to shards here, including repetitions after a load or rebuild.",
    ("collection",),
)
changes_behind = Gauge(
    "nearline_retrieval_changes_behind",
    "Known changes in the log that are not applied here.",
    ("collection",),
)
change_lag_seconds = Gauge(
    "nearline_retrieval_change_lag_seconds",
    "Age of the oldest change that has been read but not applied; 0 if there is none.",
    ("collection",),
)
oldest_change_seconds = Gauge(
    "nearline_retrieval_oldest_change_seconds",
    "Age of the oldest change that the current snapshot lacks; 0 if it lacks none.",
    ("collection",),
)
live_rows = Gauge(
    "nearline_retrieval_live_rows",
    "Chunks of live changes: served, dead (replaced but still in memory), or hidden (snapshot "
    "chunks that are no longer served).",
    ("collection", "state"),
)
log_away_seconds = Gauge(
    "nearline_retrieval_log_away_seconds",
    "Time for which live changes could not be followed; 0 while they are.",
    ("collection",),
)
changes_refused = Counter(
    "nearline_retrieval_changes_refused_total",
    "Changes of the log that cannot be applied, or that Milvus cannot store; the item stays as it "
    "was.",
    ("collection",),
)
delta_rebuilds = Counter(
    "nearline_retrieval_delta_rebuilds_total",
    "Times that live changes were reapplied from the snapshot on, because the log was set back.",
    ("collection",),
)
chunks_embedded = Counter(
    "nearline_retrieval_chunks_embedded_total",
    "Chunks of changes embedded here, because they lacked vectors of the snapshot's model.",
    ("collection",),
)
hot_reads = Counter(
    "nearline_retrieval_hot_reads_total",
    "Cached lists returned, by source: near (this process), redis, live (computed), or stale "
    "(expired, and being refreshed).",
    ("collection", "level"),
)
hot_computations = Counter(
    "nearline_retrieval_hot_computations_total",
    "Cached lists computed, by outcome: made, absent (no such item), or failed.",
    ("collection", "outcome"),
)
hot_early_refreshes = Counter(
    "nearline_retrieval_hot_early_refreshes_total",
    "Cached lists refreshed before they expire, so that not all callers find them stale at once.",
    ("collection",),
)
hot_redis_failures = Counter(
    "nearline_retrieval_hot_redis_failures_total",
    "Failed or slow reads and writes of cached lists in Redis; each pauses its use for a second.",
)
_of_collections: list[Gauge] = [
    *(shard_vectors, epoch_in_force, snapshot_created, snapshots_held),
    *(rollout_share, rollout_evidence, changes_behind, change_lag_seconds),
    *(oldest_change_seconds, live_rows, log_away_seconds),
]


def forget_with_collection(*gauges: Gauge) -> None:
    """Makes `forget` remove gauges of another module, too."""
    _of_collections.extend(gauges)


def forget(collection: str) -> None:
    """Removes the gauges of a collection that is no longer served here.

    What they said last would stay for as long as the process runs, and keep alerts firing.
    """
    for gauge in _of_collections:
        gauge.remove_by_labels({"collection": collection})

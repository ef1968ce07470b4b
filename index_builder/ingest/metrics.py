"""Prometheus metrics of the queue, exported by the ingest service, and of workers."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from nearline.contract import QueueState

lag = Gauge("nearline_ingest_lag", "Sources and documents not yet processed, including retries.")
waiting = Gauge("nearline_ingest_waiting", "Sources and documents that no worker holds yet.")
in_hand = Gauge("nearline_ingest_in_hand", "Sources and documents that workers hold.")
delayed = Gauge("nearline_ingest_delayed", "Sources and documents waiting for a retry.")
dead = Gauge("nearline_ingest_dead_letters", "Dead letters.")
oldest_age = Gauge(
    "nearline_ingest_oldest_age_seconds", "Age of the oldest waiting source or document."
)
workers = Gauge("nearline_ingest_workers", "Workers that reported recently.")
rate = Gauge(
    "nearline_ingest_documents_per_second", "Documents finished per second by all workers."
)
worker_rate = Gauge(
    "nearline_ingest_worker_documents_per_second",
    "Documents finished per second by the fastest worker.",
)
settled = Counter(
    "nearline_worker_documents_total", "Documents finished by this worker.", ("outcome",)
)
retries = Counter("nearline_worker_retries_total", "Documents that failed and will be retried.")
lost_leases = Counter(
    "nearline_worker_lost_leases_total",
    "Documents whose lease expired and that went to another worker.",
)
batch_seconds = Histogram(
    "nearline_worker_batch_seconds",
    "Time to process a batch.",
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
)


def show(state: QueueState) -> None:
    """Exports the state of the queue."""
    lag.set(state.lag)
    waiting.set(state.waiting)
    in_hand.set(state.in_hand)
    delayed.set(state.delayed)
    dead.set(state.dead)
    oldest_age.set(state.oldest_age_s)
    workers.set(len(state.workers))
    rate.set(state.documents_per_s)
    worker_rate.set(max((one.documents_per_s for one in state.workers), default=0.0))

"""Prometheus metrics of the queue: its state at the door, and what workers do."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from nearline.contract import QueueState

lag = Gauge(
    "nearline_ingest_lag", "Sources and documents that are still to be processed, or tried again."
)
waiting = Gauge("nearline_ingest_waiting", "Sources and documents that no worker holds yet.")
in_hand = Gauge("nearline_ingest_in_hand", "Sources and documents that workers hold.")
delayed = Gauge("nearline_ingest_delayed", "Sources and documents to be tried again later.")
dead = Gauge("nearline_ingest_dead_letters", "Dead letters.")
oldest_age = Gauge(
    "nearline_ingest_oldest_age_seconds", "How long the oldest of those waiting has waited."
)
workers = Gauge("nearline_ingest_workers", "Workers that said something lately.")
rate = Gauge("nearline_ingest_documents_per_second", "Documents that all workers end in a second.")
worker_rate = Gauge(
    "nearline_ingest_worker_documents_per_second",
    "Documents that the fastest worker ends in a second.",
)
settled = Counter(
    "nearline_worker_documents_total", "Documents that this worker ended.", ("outcome",)
)
retries = Counter("nearline_worker_retries_total", "Documents that failed and are tried again.")
lost_leases = Counter(
    "nearline_worker_lost_leases_total", "Documents that went to another worker meanwhile."
)
batch_seconds = Histogram(
    "nearline_worker_batch_seconds",
    "Time from taking a batch to its end.",
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
)


def show(state: QueueState) -> None:
    """Shows the state of the queue."""
    lag.set(state.lag)
    waiting.set(state.waiting)
    in_hand.set(state.in_hand)
    delayed.set(state.delayed)
    dead.set(state.dead)
    oldest_age.set(state.oldest_age_s)
    workers.set(len(state.workers))
    rate.set(state.documents_per_s)
    worker_rate.set(max((one.documents_per_s for one in state.workers), default=0.0))

"""Prometheus metrics of the embedding service."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import Counter, Gauge, Histogram

from embedding.queue import DropReason
from nearline.contract import Lane

_SECONDS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 2, 4, 8, 16)
# model: "embedder", "reranker" or "entailment".
_LABELS = ("model", "lane")
_POWERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

_texts = Counter("nearline_embedding_texts_total", "Texts, or pairs of texts, done.", _LABELS)
_truncated = Counter(
    "nearline_embedding_truncated_texts_total", "Texts longer than the model reads.", _LABELS
)
_tokens = Counter("nearline_embedding_tokens_total", "Tokens run, without padding.", _LABELS)
_padded = Counter("nearline_embedding_padded_tokens_total", "Tokens run, with padding.", _LABELS)
_batch = Histogram("nearline_embedding_batch_texts", "Texts per batch.", _LABELS, buckets=_POWERS)
_drops = Counter(
    "nearline_embedding_dropped_texts_total",
    "Texts that left the queue without having run.",
    (*_LABELS, "reason"),
)
_refused = Counter(
    "nearline_embedding_refused_requests_total", "Requests refused as overload.", _LABELS
)
_failed = Counter(
    "nearline_embedding_failed_batches_total", "Batches that the model failed on.", ("model",)
)
_fallbacks = Counter(
    "nearline_embedding_cpu_fallback_batches_total",
    "Batches that the CPU ran in place of a GPU.",
    ("model",),
)
_gpus = Gauge("nearline_embedding_gpus", "GPUs that answer.", ("model",))
_all_gpus = Gauge("nearline_embedding_configured_gpus", "GPUs that should answer.", ("model",))
_stages = Histogram(
    "nearline_embedding_stage_seconds",
    "Time of a request in each stage: tokenize, queue, inference.",
    (*_LABELS, "stage"),
    buckets=_SECONDS,
)
_queued = Gauge("nearline_embedding_queued_tokens", "Tokens that wait.", _LABELS)
_rate = Gauge(
    "nearline_embedding_tokens_per_second", "Tokens per second measured lately.", ("model",)
)


class LaneMetrics:
    """The metrics of one lane, looked up once.

    refused: Requests refused as overload. queued: Waiting tokens.
    """

    def __init__(self, model: str, lane: Lane) -> None:
        labels = (model, lane.value)
        self._texts, self._truncated = _texts.labels(*labels), _truncated.labels(*labels)
        self._tokens, self._padded = _tokens.labels(*labels), _padded.labels(*labels)
        self._batch, self.refused = _batch.labels(*labels), _refused.labels(*labels)
        self._drops = {reason: _drops.labels(*labels, reason.value) for reason in DropReason}
        self._stages = [_stages.labels(*labels, s) for s in ("tokenize", "queue", "inference")]
        self.queued = _queued.labels(*labels)

    def batch(self, texts: int, tokens: int, padded_tokens: int) -> None:
        """Records a batch."""
        self._batch.observe(texts)
        self._tokens.inc(tokens)
        self._padded.inc(padded_tokens)

    def request(self, texts: int, truncated: int, stages_s: tuple[float, float, float]) -> None:
        """Records an answered request; stages: tokenize, queue, inference."""
        self._texts.inc(texts)
        self._truncated.inc(truncated)
        for stage, spent_s in zip(self._stages, stages_s, strict=True):
            stage.observe(spent_s)

    def dropped(self, counts: Mapping[DropReason, int]) -> None:
        """Records dropped texts."""
        for reason, count in counts.items():
            self._drops[reason].inc(count)


class Metrics:
    """All metrics of one model of this process's embedding service.

    failed: Batches that the model failed on. rate: Measured tokens per second.
    fallbacks: Batches that the CPU ran in place of a GPU.

    Args:
        model: Label: the purpose of the model.
    """

    def __init__(self, model: str = "embedder") -> None:
        self.lanes = {lane: LaneMetrics(model, lane) for lane in Lane}
        self.failed, self.rate = _failed.labels(model), _rate.labels(model)
        self.fallbacks, self._gpus = _fallbacks.labels(model), _gpus.labels(model)
        self._all_gpus = _all_gpus.labels(model)

    def watch_gpus(self, configured: int, count: Callable[[], int]) -> None:
        """Reports how many of the configured GPUs answer, whenever metrics are read."""
        self._all_gpus.set(configured)
        self._gpus.set_function(count)

"""Prometheus metrics of the embedding service."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import Counter, Gauge, Histogram

from embedding.lanes import DropReason
from nearline.contract import Lane

_SECONDS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 2, 4, 8, 16)
_POWERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

_texts = Counter("nearline_embedding_texts_total", "Texts embedded.", ("lane",))
_truncated = Counter(
    "nearline_embedding_truncated_texts_total", "Texts longer than the model reads.", ("lane",)
)
_tokens = Counter("nearline_embedding_tokens_total", "Tokens run, without padding.", ("lane",))
_padded = Counter("nearline_embedding_padded_tokens_total", "Tokens run, with padding.", ("lane",))
_batch = Histogram("nearline_embedding_batch_texts", "Texts per batch.", ("lane",), buckets=_POWERS)
_drops = Counter(
    "nearline_embedding_dropped_texts_total",
    "Texts that left the queue without being embedded.",
    ("lane", "reason"),
)
_refused = Counter(
    "nearline_embedding_refused_requests_total", "Requests refused as overload.", ("lane",)
)
_failed = Counter("nearline_embedding_failed_batches_total", "Batches that the model failed on.")
_stages = Histogram(
    "nearline_embedding_stage_seconds",
    "Time of a request in each stage: tokenize, queue, inference.",
    ("lane", "stage"),
    buckets=_SECONDS,
)
_queued = Gauge("nearline_embedding_queued_tokens", "Tokens that wait.", ("lane",))
_rate = Gauge("nearline_embedding_tokens_per_second", "Tokens per second measured lately.")


class LaneMetrics:
    """The metrics of one lane, looked up once."""

    def __init__(self, lane: Lane) -> None:
        name = lane.value
        self._texts, self._truncated = _texts.labels(name), _truncated.labels(name)
        self._tokens, self._padded = _tokens.labels(name), _padded.labels(name)
        self._batch, self._refused = _batch.labels(name), _refused.labels(name)
        self._drops = {reason: _drops.labels(name, reason.value) for reason in DropReason}
        self._stages = [_stages.labels(name, s) for s in ("tokenize", "queue", "inference")]
        self._queued = _queued.labels(name)

    def batch(self, texts: int, tokens: int, padded_tokens: int) -> None:
        """A batch ran."""
        self._batch.observe(texts)
        self._tokens.inc(tokens)
        self._padded.inc(padded_tokens)

    def request(self, texts: int, truncated: int, stages_s: tuple[float, float, float]) -> None:
        """A request was answered; stages: tokenize, queue, inference."""
        self._texts.inc(texts)
        self._truncated.inc(truncated)
        for stage, spent_s in zip(self._stages, stages_s, strict=True):
            stage.observe(spent_s)

    def dropped(self, counts: Mapping[DropReason, int]) -> None:
        """Texts were dropped."""
        for reason, count in counts.items():
            self._drops[reason].inc(count)

    def refused(self) -> None:
        """A request was refused as overload."""
        self._refused.inc()

    def queued(self, tokens: int) -> None:
        """So many tokens wait now."""
        self._queued.set(tokens)


class Metrics:
    """All metrics of this process's embedding service."""

    def __init__(self) -> None:
        self.lanes = {lane: LaneMetrics(lane) for lane in Lane}

    def failed_batch(self) -> None:
        """The model failed on a batch."""
        _failed.inc()

    def rate(self, tokens_per_s: float) -> None:
        """The measured rate now."""
        _rate.set(tokens_per_s)

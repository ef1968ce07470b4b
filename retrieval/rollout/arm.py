"""Outcomes of the requests of one arm."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from nearline.quantiles import quantiles

_LATEST = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmState:
    """State of one arm.

    requests: Number of requests.
    errors: Requests that failed through no fault of the caller.
    units: Users, sessions or requests.
    p50_ms, p95_ms, p99_ms: Latency percentiles of the latest 1,024 successful requests; 0 without
        any.
    recall_samples, recall: Searches rerun exactly, and their mean recall, 0..1; 0 without any.
    lists, clicks, conversions: Lists returned with an id, and how many of them had a click or a
        conversion.
    """

    requests: int
    errors: int
    units: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    recall_samples: int
    recall: float
    lists: int
    clicks: int
    conversions: int


@dataclass(slots=True)
class ArmCounter:
    """Counts the outcomes of one arm; `recall` is the sum."""

    requests: int = 0
    errors: int = 0
    units: int = 0
    recall_samples: int = 0
    recall: float = 0.0
    lists: int = 0
    clicks: int = 0
    conversions: int = 0
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_LATEST))

    def state(self) -> ArmState:
        """Returns the current state."""
        p50, p95, p99 = quantiles(self.seconds or (0.0,), (0.5, 0.95, 0.99))
        return ArmState(
            requests=self.requests,
            errors=self.errors,
            units=self.units,
            p50_ms=p50 * 1e3,
            p95_ms=p95 * 1e3,
            p99_ms=p99 * 1e3,
            recall_samples=self.recall_samples,
            recall=self.recall / self.recall_samples if self.recall_samples else 0.0,
            lists=self.lists,
            clicks=self.clicks,
            conversions=self.conversions,
        )

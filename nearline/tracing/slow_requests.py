"""The log of slow requests: one line each, without personal data."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from prometheus_client import Counter

from nearline.tracing.spans import Scalar, Span, trace_id_of
from nearline.tracing.token_bucket import TokenBucket

# Lines per second of one process.
_LINES_PER_S: Final = 10.0
_log = logging.getLogger(__name__)
_slow = Counter(
    "nearline_slow_requests_total",
    "Requests that took longer than the limit of the slow log, by what became of their line in it.",
    ("outcome",),
)


class SlowRequestLog:
    """Logs requests that take longer than a limit.

    At most ten lines are logged per second; others are only counted.

    Args:
        limit_ms: The limit in milliseconds; 0 logs none.
        lines: Limits the lines of a second. Optional; shared by the logs of one process.
    """

    def __init__(self, limit_ms: float, lines: TokenBucket | None = None) -> None:
        self._limit_s = limit_ms / 1_000 if limit_ms else float("inf")
        self._lines = lines or TokenBucket(_LINES_PER_S)
        self._logged = _slow.labels("logged")
        self._left_out = _slow.labels("left_out")

    def with_limit(self, limit_ms: float) -> SlowRequestLog:
        """Returns a log with a limit of its own, that shares the lines of a second with this."""
        return SlowRequestLog(limit_ms, self._lines)

    def is_slow(self, seconds: float) -> bool:
        """Returns whether a request that took so long belongs into the log."""
        return seconds >= self._limit_s

    def write(
        self,
        method: str,
        code: str,
        seconds: float,
        facts: Mapping[str, Scalar],
        span: Span | None,
    ) -> None:
        """Logs a slow request.

        Args:
            method: Method, or the path of a route.
            code: Its status.
            seconds: How long it took.
            facts: See `call_facts`.
            span: Its span; None if it is not recorded.
        """
        if not self._lines.take():
            self._left_out.inc()
            return
        self._logged.inc()
        line: dict[str, object] = {
            "method": method,
            "code": code,
            "duration_ms": round(seconds * 1_000, 3),
            **facts,
        }
        if span is not None:
            line["trace_id"] = trace_id_of(span)
        _log.warning("slow request", extra=line)

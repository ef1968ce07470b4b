"""Admission control: refuses requests that cannot finish in time at the recent rate."""

from __future__ import annotations

import math

from nearline.errors import Overloaded

# Busy seconds after which a measurement weighs 1/e.
_MEMORY_S = 2.0
# An idle model takes a request whatever its rate was, if it was measured longer ago than this:
# after one slow batch, such as on a machine that stood still, only a new one can correct the rate.
_TRUSTED_S = 1.0
_SHORTEST_RETRY_S = 0.005


class RateMeter:
    """Tokens per second while the model was busy, exponentially weighted by busy time.

    Args:
        tokens_per_s: Initial estimate; with 0, everything is admitted until a batch was measured.
    """

    def __init__(self, tokens_per_s: float = 0.0) -> None:
        self._seconds = _MEMORY_S if tokens_per_s > 0 else 0.0
        self._tokens = tokens_per_s * self._seconds
        self._running = 0
        self._mark = 0.0
        self.has_measured = False

    @property
    def tokens_per_s(self) -> float:
        """The rate; 0 before the first measurement."""
        return self._tokens / self._seconds if self._seconds > 0 else 0.0

    def rate_to_trust(self, now: float) -> float:
        """Returns the rate; 0 if the model has been idle for so long that it may have changed."""
        idle = self._running == 0 and self.has_measured and now - self._mark > _TRUSTED_S
        return 0.0 if idle else self.tokens_per_s

    def started(self, now: float) -> None:
        """Records that a batch started."""
        if self._running == 0:
            self._mark = now
        self._running += 1

    def finished(self, tokens: int, now: float) -> None:
        """Records that a batch with this many tokens (0 if it failed) ended."""
        self._running -= 1
        self.has_measured = True
        spent = max(now - self._mark, 1e-9)
        self._mark = now
        kept = math.exp(-spent / _MEMORY_S)
        self._tokens = self._tokens * kept + tokens
        self._seconds = self._seconds * kept + spent


def admit(
    *,
    own_tokens: int,
    lane_tokens: int,
    ahead_tokens: int,
    max_queued_tokens: int,
    tokens_per_s: float,
    left_s: float,
) -> None:
    """Refuses a request that could not be answered in time.

    Args:
        own_tokens: Tokens of the request.
        lane_tokens: Tokens that wait in its lane; the limit is per lane, so that bulk work cannot
            keep a query out.
        ahead_tokens: Tokens that run before the request: those in its lane, in higher lanes, and in
            the model now.
        max_queued_tokens: Tokens allowed to wait in a lane. A request larger than that is admitted
            when its lane is empty.
        tokens_per_s: Measured rate; 0 if unknown.
        left_s: Seconds to the caller's deadline; may be infinite.
    Raises: Overloaded: names the seconds after which the request would be admitted at the measured
        rate.
    """
    excess = lane_tokens + own_tokens - max_queued_tokens
    if lane_tokens > 0 and excess > 0:
        raise Overloaded(
            f"{lane_tokens} tokens are waiting, at most {max_queued_tokens} may, and the request "
            f"has {own_tokens}; retry later, or send fewer texts at once",
            retry_after_s=_retry(min(excess, lane_tokens) / tokens_per_s if tokens_per_s else 1.0),
        )
    if tokens_per_s <= 0 or math.isinf(left_s):
        return
    predicted_s = (ahead_tokens + own_tokens) / tokens_per_s
    if predicted_s > left_s:
        raise Overloaded(
            f"the request would take {predicted_s:.3f} s at the measured {tokens_per_s:.0f} tokens "
            f"per second and has {left_s:.3f} s left; raise the timeout, send fewer texts "
            "at once, or retry later",
            retry_after_s=_retry(predicted_s - left_s),
        )


def _retry(seconds: float) -> float:
    return max(seconds, _SHORTEST_RETRY_S)

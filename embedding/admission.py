"""Whether a request can be done in time, from the rate at which the model has worked lately."""

from __future__ import annotations

import math

from nearline.errors import Overloaded

# Busy seconds after which a measurement weighs 1/e.
_MEMORY_S = 2.0
_SHORTEST_RETRY_S = 0.005


class RateMeter:
    """Tokens per second while the model was busy, exponentially weighted by busy time.

    Args:
        tokens_per_s: First guess; 0 admits everything until a batch was measured.
    """

    def __init__(self, tokens_per_s: float = 0.0) -> None:
        self._seconds = _MEMORY_S if tokens_per_s > 0 else 0.0
        self._tokens = tokens_per_s * self._seconds
        self._running = 0
        self._mark = 0.0
        self.has_measured = False

    @property
    def tokens_per_s(self) -> float:
        """The rate; 0 before anything was measured."""
        return self._tokens / self._seconds if self._seconds > 0 else 0.0

    def started(self, now: float) -> None:
        """A batch started."""
        if self._running == 0:
            self._mark = now
        self._running += 1

    def finished(self, tokens: int, now: float) -> None:
        """A batch of so many tokens (0 where it failed) ended."""
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
    """Refuses what would only wait in vain.

    Args:
        own_tokens: Tokens of the request.
        lane_tokens: Tokens that wait in its lane; the limit is per lane, so that bulk work cannot
            shut out a query.
        ahead_tokens: Tokens that the model does before it: of its lane, of those above, and those
            in the model now.
        max_queued_tokens: Tokens allowed to wait in a lane. A request larger than that is admitted
            when its lane is empty.
        tokens_per_s: Measured rate; 0: not known.
        left_s: Seconds to the caller's deadline; may be infinite.
    Raises: Overloaded: with the seconds after which it would be admitted at the measured rate.
    """
    excess = lane_tokens + own_tokens - max_queued_tokens
    if lane_tokens > 0 and excess > 0:
        raise Overloaded(
            f"{lane_tokens} tokens wait, {max_queued_tokens} may, and the request has "
            f"{own_tokens}; come back later, or send less at a time",
            retry_after_s=_retry(min(excess, lane_tokens) / tokens_per_s if tokens_per_s else 1.0),
        )
    if tokens_per_s <= 0 or math.isinf(left_s):
        return
    predicted_s = (ahead_tokens + own_tokens) / tokens_per_s
    if predicted_s > left_s:
        raise Overloaded(
            f"the request would take {predicted_s:.3f} s at the measured {tokens_per_s:.0f} tokens "
            f"per second and has {left_s:.3f} s left; raise the timeout, send less at a time, or "
            "come back later",
            retry_after_s=_retry(predicted_s - left_s),
        )


def _retry(seconds: float) -> float:
    return max(seconds, _SHORTEST_RETRY_S)

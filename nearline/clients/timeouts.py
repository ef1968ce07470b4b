"""Default timeouts of clients."""

from __future__ import annotations

# Used if the caller sets none: a call without a deadline can hang forever.
DEFAULT_TIMEOUT_S = 10.0


def effective_timeout_s(timeout_s: float | None) -> float:
    """Returns the timeout of a call in seconds: the caller's, or the default of 10."""
    return DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s

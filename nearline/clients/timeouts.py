"""How long a client waits for an answer."""

from __future__ import annotations

# Applies where the caller names none: a call without a deadline can hang for ever.
DEFAULT_TIMEOUT_S = 10.0


def effective_timeout_s(timeout_s: float | None) -> float:
    """Returns the seconds that a call may take: the caller's, or 10."""
    return DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s

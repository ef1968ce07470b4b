"""Calls of a server that wait for their turn, and how often they have it."""

from __future__ import annotations

from asyncio import Future
from collections import deque
from typing import Final

# So many turns say when one more call would have its own.
_MOST_TURNS: Final = 128


class TurnRate:
    """Rate at which waiting calls have their turn; its older half is forgotten now and then."""

    __slots__ = ("_since_s", "_turns")

    def __init__(self, now_s: float) -> None:
        self._since_s = now_s
        self._turns = 0.0

    def each_s(self, now_s: float) -> float:
        """Returns the seconds from one turn to the next, lately."""
        return (now_s - self._since_s) / max(1.0, self._turns)

    def note(self, now_s: float) -> None:
        """Notes a turn."""
        self._turns += 1
        if self._turns >= _MOST_TURNS:
            self._turns /= 2
            self._since_s += (now_s - self._since_s) / 2


class CallQueue:
    """Calls that wait for their turn, the oldest first.

    rate: Of their turns. passed: Of the lane bulk: turns that other calls of the tenant had since
    its own last one.
    """

    __slots__ = ("calls", "passed", "rate")

    def __init__(self, now_s: float) -> None:
        self.calls: deque[Future[None]] = deque()
        self.rate = TurnRate(now_s)
        self.passed = 0

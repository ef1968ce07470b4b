"""Whether a replica should be asked: a state machine without a clock of its own."""

from __future__ import annotations

from enum import Enum

from nearline.retry import Backoff

_FAILURES_TO_EJECT = 3
_SILENCES_TO_BE_AWAY = 2
_BACKOFF = Backoff(0.5, 30.0)


class ReplicaState(Enum):
    """State of a replica."""

    AWAY = "away"
    EJECTED = "ejected"
    PROBED = "probed"
    READY = "ready"


class ReplicaHealth:
    """What is known of a replica from its calls and from being asked for its status.

    AWAY: its connection is gone or it has been silent twice: nothing is sent but questions for its
    status, and an answer ends it. EJECTED: too many failures in a row: nothing is sent for a time
    that doubles with each ejection, unless no other replica is there. PROBED: back from either;
    one call at a time, until one succeeds (READY) or fails (EJECTED for twice as long).

    Every `now` is in seconds of one clock that does not go back.
    """

    def __init__(self) -> None:
        self.away = True
        self.why = "it has not been asked yet"
        self._probed = False
        self._until = 0.0
        self._ejections = 0
        self._failures = 0
        self._silences = 0

    def state(self, now: float) -> ReplicaState:
        """Returns the state."""
        if self.away:
            return ReplicaState.AWAY
        if now < self._until:
            return ReplicaState.EJECTED
        return ReplicaState.PROBED if self._probed else ReplicaState.READY

    def admits(self, now: float, in_flight: int) -> bool:
        """Returns whether it should be asked, given the calls on their way to it."""
        return not self.away and now >= self._until and not (self._probed and in_flight)

    def answered(self) -> None:
        """Takes in that it told its status."""
        self.away = False
        self._silences = 0

    def lost(self, why: str) -> None:
        """Takes in that there is no connection to it."""
        self.away = self._probed = True
        self.why = why

    def was_silent(self, now: float, why: str) -> bool:
        """Takes in that it did not tell its status in time; True where it is now ejected."""
        self._silences += 1
        self.why = why
        if self._silences >= _SILENCES_TO_BE_AWAY:
            self.lost(why)
            return False
        return self._eject(now)

    def succeeded(self) -> None:
        """Takes in that a call to it succeeded."""
        self._failures = 0
        self._probed = False
        self._ejections = 0

    def failed(self, now: float, why: str) -> bool:
        """Takes in that a call failed, or was slower than another replica that was asked later.

        Returns: Whether it is now ejected, and was not before.
        """
        self._failures += 1
        self.why = why
        return (self._probed or self._failures >= _FAILURES_TO_EJECT) and self._eject(now)

    def _eject(self, now: float) -> bool:
        if now < self._until:
            return False
        self._until = now + _BACKOFF.delay_s(self._ejections)
        self._ejections += 1
        self._failures = 0
        self._probed = True
        return True

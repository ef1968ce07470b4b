"""Health of a replica: a state machine that decides whether it may be called."""

from __future__ import annotations

from enum import Enum

from nearline.retry import Backoff

_FAILURES_TO_EJECT = 3
_SILENCES_TO_AWAY = 2
_BACKOFF = Backoff(0.5, 30.0)


class ReplicaState(Enum):
    """State of a replica."""

    AWAY = "away"
    EJECTED = "ejected"
    PROBED = "probed"
    READY = "ready"


class ReplicaHealth:
    """Health of a replica, derived from its calls and its status.

    AWAY: the connection is lost, or two status requests timed out. Only status requests are sent;
    an answer ends this state. EJECTED: too many failures in a row. For a period that doubles with
    each ejection, calls are sent only if no other replica is left. PROBED: back from either state.
    One call at a time is sent, until one succeeds (READY) or fails (EJECTED for twice as long).

    Every `now` is in seconds of one monotonic clock.
    """

    def __init__(self) -> None:
        self.away = True
        self.reason = "it has not been contacted yet"
        self._probed = False
        self._until = 0.0
        self._ejections = 0
        self._failures = 0
        self._silences = 0

    def state(self, now: float) -> ReplicaState:
        """Returns the current state."""
        if self.away:
            return ReplicaState.AWAY
        if now < self._until:
            return ReplicaState.EJECTED
        return ReplicaState.PROBED if self._probed else ReplicaState.READY

    def admits(self, now: float, in_flight: int) -> bool:
        """Returns whether a call may be sent, given the number of running calls."""
        return not self.away and now >= self._until and not (self._probed and in_flight)

    def record_status(self) -> None:
        """Records that a status request was answered."""
        self.away = False
        self._silences = 0

    def record_lost(self, reason: str) -> None:
        """Records that the connection was lost."""
        self.away = self._probed = True
        self.reason = reason

    def record_silence(self, now: float, reason: str) -> bool:
        """Records that a status request timed out; returns whether the replica is now ejected."""
        self._silences += 1
        self.reason = reason
        if self._silences >= _SILENCES_TO_AWAY:
            self.record_lost(reason)
            return False
        return self._eject(now)

    def record_success(self) -> None:
        """Records that a call succeeded."""
        self._failures = 0
        self._probed = False
        self._ejections = 0

    def record_failure(self, now: float, reason: str) -> bool:
        """Records that a call failed, or was slower than a hedged call sent later.

        Returns: Whether this ejected the replica.
        """
        self._failures += 1
        self.reason = reason
        return (self._probed or self._failures >= _FAILURES_TO_EJECT) and self._eject(now)

    def _eject(self, now: float) -> bool:
        if now < self._until:
            return False
        self._until = now + _BACKOFF.delay_s(self._ejections)
        self._ejections += 1
        self._failures = 0
        self._probed = True
        return True

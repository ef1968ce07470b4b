"""Builds of upkeep that failed or were refused, so that it does not repeat them at once."""

from __future__ import annotations

import time
from typing import NamedTuple

# Each attempt costs as much as a build. After a refusal by the gate, the changes since may make a
# difference. Anything else may pass sooner; the pause doubles with each failure in a row.
_REFUSED_S = 6 * 3600.0
_FAILED_S = 300.0
# A rebuild of the same snapshot would be refused again.
REBUILD_REFUSED_S = 2 * 86_400.0


class _Failure(NamedTuple):
    """A failure.

    epoch: Of the snapshot that was current. until_s: Monotonic time at which the pause ends.
    in_a_row: Failures in a row, with this one.
    """

    epoch: int
    until_s: float
    in_a_row: int


class FailedBuilds:
    """The newest failure of each collection, in memory.

    Args:
        refused_s: Pause after a refusal by the gate.
    """

    def __init__(self, refused_s: float = _REFUSED_S) -> None:
        self._refused_s = refused_s
        self._newest: dict[str, _Failure] = {}

    def pauses(self, name: str, epoch: int) -> bool:
        """Returns whether the next build has to wait; not once another snapshot is current."""
        failure = self._newest.get(name)
        return failure is not None and epoch == failure.epoch and time.monotonic() < failure.until_s

    def add(self, name: str, epoch: int, *, refused: bool) -> int:
        """Adds a failure. refused: By the gate. Returns: The number of failures in a row."""
        earlier = self._newest.get(name)
        in_a_row = 1 + (earlier.in_a_row if earlier is not None else 0)
        pause_s = min(_REFUSED_S, _FAILED_S * 2 ** min(in_a_row - 1, 16))
        until_s = time.monotonic() + (self._refused_s if refused else pause_s)
        self._newest[name] = _Failure(epoch, until_s, in_a_row)
        return in_a_row

    def forget(self, name: str) -> None:
        """Forgets the failures of a collection: a later build succeeded, or it was dropped."""
        self._newest.pop(name, None)

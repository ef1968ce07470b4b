"""When the number of recorded interactions makes a training due."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from nearline.v1 import snapshot_pb2

# Models are trained again once as many interactions were recorded since as they know; after a day,
# a tenth of them are enough.
_DAY_S, _DAY_GROWTH = 86_400.0, 10
# While a log grows by a tenth from one round to the next, an import is running: a training waits up
# to ten minutes.
_FILLED, _MAX_WAIT_S = 1.1, 600.0
# Reading a log costs 40 microseconds for each entry: an hour passes between two readings, or the
# log has grown by a tenth.
_READ_S = 3_600.0
_READ_GROWTH = 1.1


class _Reading(NamedTuple):
    """The result of reading a log. entries: In it. recorded: Interactions of users among them."""

    time_s: float
    entries: int
    recorded: int


class _Filling(NamedTuple):
    """A log that has enough for a training. since_s: When it first had."""

    since_s: float
    entries: int


class TrainingSchedule:
    """Knows for each collection how many interactions are needed, and how many there are.

    The number of entries in a log is cheap to know, but some of them are of sessions without a
    user, or repeated; only a reading tells.

    Args:
        first: Interactions that make the first training due; 0: there is none.
        clock: Returns seconds.
    """

    def __init__(self, first: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._first = first
        self._clock = clock
        self._readings: dict[str, _Reading] = {}
        self._filling: dict[str, _Filling] = {}

    def needed(self, card: snapshot_pb2.BehaviourCard | None) -> int:
        """Returns how many recorded interactions make the next training due; 0: no number does.

        Args:
            card: What the current models were trained on; None if there are none.
        """
        if card is None:
            return self._first
        is_old = time.time() - card.newest_time.ToNanoseconds() / 1e9 > _DAY_S
        known = card.interactions
        return card.recorded + (max(1, known // _DAY_GROWTH) if is_old else known)

    def is_filling(self, name: str, entries: int) -> bool:
        """Returns whether a log with enough for a training is still being filled.

        Args:
            entries: In the log now, at a round of upkeep.
        """
        now_s = self._clock()
        before = self._filling.get(name)
        since_s = now_s if before is None else before.since_s
        self._filling[name] = _Filling(since_s, entries)
        grows = before is None or entries > _FILLED * before.entries
        return grows and now_s - since_s < _MAX_WAIT_S

    def recorded(self, name: str, entries: int) -> int:
        """Returns the estimated number of interactions of users in a log of this size."""
        reading = self._readings.get(name)
        others = 0 if reading is None else reading.entries - reading.recorded
        return max(0, entries - others)

    def should_read(self, name: str, entries: int, needed: int) -> bool:
        """Returns whether a log of this size has to be read to know whether a training is due."""
        if not needed or self.recorded(name, entries) < needed:
            return False
        reading = self._readings.get(name)
        return (
            reading is None
            # The training that it led to was not finished.
            or reading.recorded >= needed
            or entries >= _READ_GROWTH * reading.entries
            or self._clock() - reading.time_s >= _READ_S
        )

    def note_reading(self, name: str, entries: int, recorded: int) -> None:
        """Notes the result of reading a log of this size."""
        self._readings[name] = _Reading(self._clock(), entries, recorded)
        self._filling.pop(name, None)

    def forget(self, name: str) -> None:
        """Forgets a collection that was dropped."""
        self._readings.pop(name, None)
        self._filling.pop(name, None)

"""When the number of recorded interactions makes a training due."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from nearline.v1 import snapshot_pb2

# Models are trained again once so many times as many interactions were recorded.
_GROWTH = 2
# Reading a log costs 40 microseconds for each entry: an hour passes between two readings, or the
# log has grown by a tenth.
_READ_S = 3_600.0
_READ_GROWTH = 1.1


class _Reading(NamedTuple):
    """What a reading of a log found. entries: In the log. recorded: Interactions of users."""

    time_s: float
    entries: int
    recorded: int


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

    def needed(self, card: snapshot_pb2.BehaviourCard | None) -> int:
        """Returns how many recorded interactions make the next training due; 0: no number does.

        Args:
            card: What the current models were trained on; None if there are none.
        """
        if card is None:
            return self._first
        return _GROWTH * max(card.recorded, card.interactions)

    def recorded(self, name: str, entries: int) -> int:
        """Returns the probable number of interactions of users in a log with so many entries."""
        reading = self._readings.get(name)
        others = 0 if reading is None else reading.entries - reading.recorded
        return max(0, entries - others)

    def should_read(self, name: str, entries: int, needed: int) -> bool:
        """Returns whether a log with so many entries has to be read to know whether it is due."""
        if not needed or self.recorded(name, entries) < needed:
            return False
        reading = self._readings.get(name)
        return (
            reading is None
            or entries >= _READ_GROWTH * reading.entries
            or self._clock() - reading.time_s >= _READ_S
        )

    def note_reading(self, name: str, entries: int, recorded: int) -> None:
        """Notes that a log of so many entries had so many interactions of users."""
        self._readings[name] = _Reading(self._clock(), entries, recorded)

    def forget(self, name: str) -> None:
        """Forgets a collection that was dropped."""
        self._readings.pop(name, None)

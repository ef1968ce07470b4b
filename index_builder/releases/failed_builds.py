"""Builds of upkeep that failed or were refused, so that it does not repeat them at once."""

from __future__ import annotations

import time
from typing import NamedTuple

from nearline.counts import counted

# Each attempt costs as much as a build. After a refusal by the gate, the changes since may make a
# difference. Anything else may pass sooner; the pause doubles with each failure in a row.
_REFUSED_S = 6 * 3600.0
_FAILED_S = 300.0
# A rebuild from the same data would be refused again. So many changes, relative to the documents,
# are other data; after so long, a rebuild is worth a try all the same.
_NEW_SHARE = 0.01
_SAME_DATA_S = 2 * 86_400.0


class BuildInputs(NamedTuple):
    """Inputs of a build.

    reason: Why it is due. epoch: Epoch of the current snapshot. changes: Live changes that the
    current snapshot lacks. documents: Documents in it.
    """

    reason: str
    epoch: int
    changes: int
    documents: int


class _Failure(NamedTuple):
    """A failure. time_s, until_s: Monotonic times of it, and of the end of the pause after it.

    in_a_row: Failures in a row, with this one. refused: Whether the gate refused the snapshot.
    """

    inputs: BuildInputs
    time_s: float
    until_s: float
    in_a_row: int
    refused: bool


class FailedBuilds:
    """The newest failure of each collection, in memory."""

    def __init__(self) -> None:
        self._newest: dict[str, _Failure] = {}

    def pauses(self, name: str, epoch: int) -> bool:
        """Returns whether the next build has to wait; not once another snapshot is current."""
        failure = self._newest.get(name)
        return (
            failure is not None
            and epoch == failure.inputs.epoch
            and time.monotonic() < failure.until_s
        )

    def news(self, name: str, inputs: BuildInputs) -> str | None:
        """Returns what is new since the gate refused the last build.

        Returns: Empty if it refused none; None if nothing is new, so that it would do so again.
        """
        failure = self._newest.get(name)
        if failure is None or not failure.refused:
            return ""
        earlier = failure.inputs
        if inputs.epoch != earlier.epoch:
            return "since the last refusal by the gate, another snapshot became current"
        new = inputs.changes - earlier.changes
        if new > _NEW_SHARE * inputs.documents:
            return f"since the last refusal by the gate, {counted(new, 'change')} were made"
        if inputs.reason and _kind(inputs.reason) != _kind(earlier.reason):
            return "the last refusal by the gate was of a build for another reason"
        if time.monotonic() - failure.time_s >= _SAME_DATA_S:
            return "the last refusal by the gate was two days ago"
        return None

    def add(self, name: str, inputs: BuildInputs, *, refused: bool) -> int:
        """Adds a failure. refused: By the gate. Returns: The number of failures in a row."""
        earlier = self._newest.get(name)
        in_a_row = 1 + (earlier.in_a_row if earlier is not None else 0)
        pause_s = _REFUSED_S if refused else min(_REFUSED_S, _FAILED_S * 2 ** min(in_a_row - 1, 16))
        now_s = time.monotonic()
        self._newest[name] = _Failure(inputs, now_s, now_s + pause_s, in_a_row, refused)
        return in_a_row

    def forget(self, name: str) -> None:
        """Forgets the failures of a collection: a later build succeeded, or it was dropped."""
        self._newest.pop(name, None)


def _kind(reason: str) -> str:
    """Returns a reason without its figures: "drift of score: 0.3 is above 0.25" is about score."""
    return reason.partition(":")[0]

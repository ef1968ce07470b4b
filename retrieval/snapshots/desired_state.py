"""The snapshot that a collection should serve, and when to retry loading it. No clock, no I/O."""

from __future__ import annotations

from dataclasses import dataclass

from nearline.retry import Backoff

_LONGEST_WAIT_S = 60.0


@dataclass(slots=True)
class DesiredState:
    """Tracks the alias record of one collection until its snapshot is served here.

    retry_s: Seconds from the first failure to the next attempt; doubled with each failure.
    epoch, snapshot_id: The current alias record of the store.
    served_epoch: Epoch served here; 0 if none.
    problem: Why the last attempt failed; empty if it did not.
    """

    retry_s: float
    epoch: int = 0
    snapshot_id: str = ""
    served_epoch: int = 0
    problem: str = ""
    _failures: int = 0
    _not_before: float = 0.0

    @property
    def has_failed(self) -> bool:
        """Whether the snapshot could not be prepared."""
        return bool(self.problem)

    def update(self, epoch: int, snapshot_id: str) -> None:
        """Sets the current alias record; a new one is due at once, even after failures."""
        if epoch == self.epoch:
            return
        self.epoch, self.snapshot_id = epoch, snapshot_id
        self.problem, self._failures, self._not_before = "", 0, 0.0

    def is_due(self, now: float) -> bool:
        """Returns whether to prepare the snapshot now."""
        return self.epoch > self.served_epoch and now >= self._not_before

    def mark_prepared(self, epoch: int) -> bool:
        """Notes that the snapshot of a record is ready; returns whether to serve it.

        Returns: False if a newer record has arrived in the meantime: a snapshot that was rolled
            back while it loaded must not go live.
        """
        if epoch != self.epoch:
            return False
        self.served_epoch = epoch
        self.problem = ""
        return True

    def mark_failed(self, epoch: int, problem: str, now: float) -> None:
        """Notes that the snapshot could not be prepared; the served one stays."""
        if epoch != self.epoch:
            return
        self.problem = problem
        self._not_before = now + Backoff(self.retry_s, _LONGEST_WAIT_S).delay_s(self._failures)
        self._failures += 1

"""What one collection should serve next, and when to try again. No clock, no I/O."""

from __future__ import annotations

from dataclasses import dataclass

from nearline.retry import Backoff

_LONGEST_WAIT_S = 60.0


@dataclass(slots=True)
class DesiredState:
    """Follows the alias record of one collection until its snapshot is in force here.

    retry_s: Seconds from a first failure to the next attempt; doubled from failure to failure.
    epoch, snapshot_id: The record in force in the store.
    reached: Epoch in force here; 0: none.
    problem: Why the last attempt failed; empty: it did not.
    """

    retry_s: float
    epoch: int = 0
    snapshot_id: str = ""
    reached: int = 0
    problem: str = ""
    _failures: int = 0
    _not_before: float = 0.0

    @property
    def stuck(self) -> bool:
        """Whether what the alias names could not be prepared."""
        return bool(self.problem)

    def see(self, epoch: int, snapshot_id: str) -> None:
        """Notes the record in force; a new one is tried at once, whatever became of the last."""
        if epoch == self.epoch:
            return
        self.epoch, self.snapshot_id = epoch, snapshot_id
        self.problem, self._failures, self._not_before = "", 0, 0.0

    def wants(self, now: float) -> bool:
        """Returns whether to prepare the snapshot now."""
        return self.epoch > self.reached and now >= self._not_before

    def prepared(self, epoch: int) -> bool:
        """Notes that the snapshot of a record is ready; tells whether to put it in force.

        False where a newer record has come in the meantime: a snapshot that was rolled back while
        it loaded must not go live.
        """
        if epoch != self.epoch:
            return False
        self.reached = epoch
        self.problem = ""
        return True

    def failed(self, epoch: int, problem: str, now: float) -> None:
        """Notes that it could not be prepared; what is in force stays."""
        if epoch != self.epoch:
            return
        self.problem = problem
        self._not_before = now + Backoff(self.retry_s, _LONGEST_WAIT_S).delay_s(self._failures)
        self._failures += 1

"""Decides how many ingest workers should run, from the state of the queue."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

from nearline.contract import QueueState
from nearline.errors import SettingsError

TARGET_S: Final = 10.0
IDLE_S: Final = 10.0
# The speed of a worker counts once it has run this long.
_SETTLED_S = 3.0
_MIN_PER_S = 1e-3
# While documents wait, the expected speed follows the measured one with this time constant.
_FOLLOW_S = 30.0
# Share of their time that remaining workers must have free; a shortage below it is ignored.
_FREE_SHARE = 0.2
# Consecutive looks that must each find more documents for the lag to count as growing.
_GROWTH_LOOKS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingOptions:
    """Options of the scaling.

    min_workers, max_workers: The bounds; 0 <= min_workers <= max_workers.
    target_s: Seconds within which the documents now in the queue should be processed.
    idle_s: Workers are stopped once fewer have been enough for this many seconds.
    assumed_per_s: Documents per second assumed of a worker until one has been measured.
    """

    min_workers: int = 0
    max_workers: int = 2
    target_s: float = TARGET_S
    idle_s: float = IDLE_S
    assumed_per_s: float = 50.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_workers <= self.max_workers:
            raise SettingsError(
                f"--min-workers {self.min_workers} and --max-workers {self.max_workers} leave no "
                "number between them; raise the latter"
            )


class ScalingDecision(NamedTuple):
    """A number of workers, and the reason for it."""

    workers: int
    reason: str


class ScalingPolicy:
    """Decides how many workers should run.

    Scales up at once: to lag / (documents/s of a worker x `target_s`); to as many workers as stop
    the lag from growing, if it grew in every recent reading; and to one worker if anything is in
    the queue. Scales down only to the maximum that was needed during the last `idle_s`, and never
    below what the incoming load needs; to zero once nothing has come in for that long. So a steady
    load keeps a steady number of workers.

    Args:
        scaling: Bounds and times.
    """

    def __init__(self, scaling: ScalingOptions) -> None:
        self._scaling = scaling
        # Documents/s of one worker; 0 until known.
        self._per_s = 0.0
        # By worker: when it was first seen, and its last measured speed.
        self._measured: dict[str, tuple[float, float]] = {}
        self._rising = False
        # Time and lag of the last look.
        self._last_look: tuple[float, int] | None = None
        # Between looks: number of workers before, and growth of the lag per second.
        self._growth: deque[tuple[int, float]] = deque(maxlen=_GROWTH_LOOKS)
        # Time and needed workers: during the last `idle_s`, and the last before that.
        self._history: deque[tuple[float, int]] = deque()

    @property
    def documents_per_s(self) -> float:
        """Documents per second expected of one worker."""
        return max(self._per_s, _MIN_PER_S) if self._per_s else self._scaling.assumed_per_s

    def forget(self) -> None:
        """Records that the queue could not be read, so that its recent history is unknown."""
        self._history.clear()
        self._growth.clear()
        self._last_look = None

    def decide(self, queue: QueueState, workers: int, now: float) -> ScalingDecision:
        """Returns how many workers should run.

        Args:
            queue: Its current state.
            workers: Current number of workers, including those that are starting.
            now: Seconds of a monotonic clock.
        """
        self._learn(queue, now)
        least, most = self._scaling.min_workers, self._scaling.max_workers
        wanted = min(max(self._needed(queue, workers), least), most)
        self._note(wanted, now)
        if wanted > workers:
            return ScalingDecision(wanted, self._why(queue, wanted))
        watched_since, _ = self._history[0]
        enough = max(one for _, one in self._history)
        if now - watched_since < self._scaling.idle_s or enough >= workers:
            return ScalingDecision(workers, "")
        state = f"{enough} sufficed" if enough else "the queue was empty"
        return ScalingDecision(enough, f"{state} for {self._scaling.idle_s:g} s")

    def _needed(self, queue: QueueState, workers: int) -> int:
        # While the lag does not grow, workers process what comes in. This only keeps workers: busy
        # workers that process much are no reason for more.
        sustaining = min(
            workers, math.ceil(queue.documents_per_s / ((1 - _FREE_SHARE) * self.documents_per_s))
        )
        if queue.lag:
            return max(self._in_time(queue), self._stopping_growth(), sustaining, 1)
        # Documents that arrive and end between two looks do not show in the lag.
        return sustaining if self._rising else 0

    def _in_time(self, queue: QueueState) -> int:
        return math.ceil(queue.lag / (self.documents_per_s * self._scaling.target_s))

    def _stopping_growth(self) -> int:
        """Returns the number of workers that stops the lag from growing, or 0 if it does not
        grow.
        """
        # A large submission makes it grow once; a load above the capacity, at every look.
        free = _FREE_SHARE * self.documents_per_s
        if len(self._growth) < _GROWTH_LOOKS or min(by for _, by in self._growth) <= free:
            return 0
        incoming = min(workers + by / self.documents_per_s for workers, by in self._growth)
        return math.ceil(incoming - _FREE_SHARE)

    def _note(self, wanted: int, now: float) -> None:
        self._history.append((now, wanted))
        while len(self._history) > 1 and self._history[1][0] <= now - self._scaling.idle_s:
            self._history.popleft()

    def _learn(self, queue: QueueState, now: float) -> None:
        """Updates the speed of a worker: the best one measured; only busy workers can lower it."""
        known, self._measured = self._measured, {}
        passed_s = 0.0
        if self._last_look is not None:
            before_s, lag = self._last_look
            passed_s = now - before_s
            if passed_s > 0:
                self._growth.append((len(known), (queue.lag - lag) / passed_s))
        self._last_look = now, queue.lag
        settled = 0.0
        self._rising = False
        for worker in queue.workers:
            since, before = known.get(worker.worker_id, (now, 0.0))
            self._measured[worker.worker_id] = since, worker.documents_per_s
            # It is a moving average, which rises only if documents were processed.
            self._rising |= worker.documents_per_s > before
            if now - since >= _SETTLED_S:
                settled = max(settled, worker.documents_per_s)
        if settled > self._per_s:
            self._per_s = settled
        elif settled and queue.waiting:
            self._per_s += (settled - self._per_s) * min(1.0, passed_s / _FOLLOW_S)

    def _why(self, queue: QueueState, wanted: int) -> str:
        known = "" if self._per_s else ", assumed"
        speed = f"{queue.lag} documents left at {self.documents_per_s:.1f}/s per worker{known}"
        if self._in_time(queue) < wanted <= self._stopping_growth():
            return f"{speed}, growing by {self._growth[-1][1]:.1f}/s"
        return f"{speed}, within {self._scaling.target_s:g} s"

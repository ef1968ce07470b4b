"""How many workers there should be, from what the queue says of itself."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

from nearline.contract import QueueState
from nearline.errors import SettingsError

TARGET_S: Final = 10.0
IDLE_S: Final = 10.0
# What a worker has shown is believed once it has been there for so long.
_SETTLED_S = 3.0
_LEAST_PER_S = 1e-3
# While documents wait, the speed that is reckoned with follows what workers show now.
_FOLLOWS_S = 30.0
# Workers that are left must have so much of their time free; so much too few is not too few.
_FREE = 0.2
# So many looks in a row must find more than the one before for that to be a growth.
_GROWING = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingOptions:
    """How workers are scaled.

    min_workers, max_workers: The bounds; 0 <= min_workers <= max_workers.
    target_s: Seconds within which what is in the queue now should be done.
    idle_s: Seconds for which fewer workers must have been enough before any is stopped.
    assumed_per_s: Documents that a worker is taken to end in a second until one has shown it.
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
    """How many workers there should be, and why."""

    workers: int
    reason: str


class ScalingPolicy:
    """Says how many workers there should be.

    Up at once: to lag / (documents/s of a worker x `target_s`); to as many as it takes for the lag
    to grow no more, where it grows look by look; and to one where anything is in the queue at all.
    Down only to the most that was wanted at any time of the last `idle_s`, and to no fewer than can
    bear what comes in; to none when nothing came in for so long. So a steady load keeps the number
    that bears it.

    Args:
        scaling: Bounds and times.
    """

    def __init__(self, scaling: ScalingOptions) -> None:
        self._scaling = scaling
        # Documents/s of one worker; 0: not known yet.
        self._per_s = 0.0
        # Of each worker: when it was first seen, and what it showed last.
        self._shown: dict[str, tuple[float, float]] = {}
        self._rising = False
        # When the queue was looked at last, and what was to do.
        self._looked: tuple[float, int] | None = None
        # Between looks: how many workers there were before, and what the lag grew by in a second.
        self._grown: deque[tuple[int, float]] = deque(maxlen=_GROWING)
        # When how many were wanted: in the last `idle_s`, and the last one before.
        self._wanted: deque[tuple[float, int]] = deque()

    @property
    def documents_per_s(self) -> float:
        """What one worker is reckoned to end in a second."""
        return max(self._per_s, _LEAST_PER_S) if self._per_s else self._scaling.assumed_per_s

    def forget(self) -> None:
        """Notes that the queue could not be looked at: what it held meanwhile is not known."""
        self._wanted.clear()
        self._grown.clear()
        self._looked = None

    def decide(self, queue: QueueState, workers: int, now: float) -> ScalingDecision:
        """Returns how many workers there should be.

        Args:
            queue: Its state now.
            workers: How many there are, those that are starting included.
            now: Seconds of a clock that never goes back.
        """
        self._learn(queue, now)
        least, most = self._scaling.min_workers, self._scaling.max_workers
        wanted = min(max(self._needed(queue, workers), least), most)
        self._note(wanted, now)
        if wanted > workers:
            return ScalingDecision(wanted, self._why(queue, wanted))
        watched_since, _ = self._wanted[0]
        enough = max(one for _, one in self._wanted)
        if now - watched_since < self._scaling.idle_s or enough >= workers:
            return ScalingDecision(workers, "")
        said = f"{enough} were enough" if enough else "nothing was left"
        return ScalingDecision(enough, f"{said} for {self._scaling.idle_s:g} s")

    def _needed(self, queue: QueueState, workers: int) -> int:
        # What workers end is, while the lag does not grow, what comes in. It only keeps workers:
        # that busy ones end much is no reason for more.
        bearing = min(
            workers, math.ceil(queue.documents_per_s / ((1 - _FREE) * self.documents_per_s))
        )
        if queue.lag:
            return max(self._in_time(queue), self._stopping_growth(), bearing, 1)
        # What comes in and is done between two looks is not seen in the lag.
        return bearing if self._rising else 0

    def _in_time(self, queue: QueueState) -> int:
        return math.ceil(queue.lag / (self.documents_per_s * self._scaling.target_s))

    def _stopping_growth(self) -> int:
        """Returns how many it takes for the lag to grow no more; 0: it does not."""
        # A large submission makes it grow once; what comes faster than it is done, each time.
        free = _FREE * self.documents_per_s
        if len(self._grown) < _GROWING or min(by for _, by in self._grown) <= free:
            return 0
        coming = min(workers + by / self.documents_per_s for workers, by in self._grown)
        return math.ceil(coming - _FREE)

    def _note(self, wanted: int, now: float) -> None:
        self._wanted.append((now, wanted))
        while len(self._wanted) > 1 and self._wanted[1][0] <= now - self._scaling.idle_s:
            self._wanted.popleft()

    def _learn(self, queue: QueueState, now: float) -> None:
        """Takes the best that a worker shows; less only from those that have all they can do."""
        known, self._shown = self._shown, {}
        passed_s = 0.0
        if self._looked is not None:
            before_s, lag = self._looked
            passed_s = now - before_s
            if passed_s > 0:
                self._grown.append((len(known), (queue.lag - lag) / passed_s))
        self._looked = now, queue.lag
        settled = 0.0
        self._rising = False
        for one in queue.workers:
            since, before = known.get(one.worker_id, (now, 0.0))
            self._shown[one.worker_id] = since, one.documents_per_s
            # It is the mean of some time, so that it rises only where something was done.
            self._rising |= one.documents_per_s > before
            if now - since >= _SETTLED_S:
                settled = max(settled, one.documents_per_s)
        if settled > self._per_s:
            self._per_s = settled
        elif settled and queue.waiting:
            self._per_s += (settled - self._per_s) * min(1.0, passed_s / _FOLLOWS_S)

    def _why(self, queue: QueueState, wanted: int) -> str:
        known = "" if self._per_s else ", assumed"
        speed = f"{queue.lag} to do at {self.documents_per_s:.1f}/s of a worker{known}"
        if self._in_time(queue) < wanted <= self._stopping_growth():
            return f"{speed}, and {self._grown[-1][1]:.1f} more each second"
        return f"{speed}, within {self._scaling.target_s:g} s"

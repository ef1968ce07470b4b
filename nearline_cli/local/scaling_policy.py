"""Decides how many ingest workers should run, from the state of the queue."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

from nearline.contract import QueueState
from nearline.errors import SettingsError

# Seconds within which the documents now in the queue should be processed.
_TARGET_S: Final = 10.0
# Workers stop once fewer have been enough for this long. Workers report their mean speed of the
# last 30 seconds, so the last ones stop about 40 seconds after their last document.
_IDLE_S: Final = 10.0
# Documents per second of a worker until one was faster, or was slower with work to do.
_ASSUMED_PER_S: Final = 50.0
# A slower speed counts by this share at each look, since a worker begins slowly.
_FOLLOW: Final = 0.1
_MIN_PER_S: Final = 1e-3
# Share of their time that remaining workers must have free.
_FREE_SHARE: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingOptions:
    """Bounds of the number of workers: 0 <= min_workers <= max_workers."""

    min_workers: int = 0
    max_workers: int = 2

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

    Scales up at once, to as many as process the queue in ten seconds, and to one if anything is in
    it. Scales down only to the most that were needed during the last ten seconds, and never below
    what the incoming load needs. So a steady load keeps a steady number of workers.

    Args:
        scaling: Bounds.
    """

    def __init__(self, scaling: ScalingOptions) -> None:
        self._scaling = scaling
        self._per_s = _ASSUMED_PER_S
        # Time and needed workers: during the last `_IDLE_S`, and the last before that.
        self._history: deque[tuple[float, int]] = deque()

    @property
    def documents_per_s(self) -> float:
        """Documents per second expected of one worker."""
        return max(self._per_s, _MIN_PER_S)

    def forget(self) -> None:
        """Records that the queue could not be read, so that its recent history is unknown."""
        self._history.clear()

    def decide(self, queue: QueueState, workers: int, now: float) -> ScalingDecision:
        """Returns how many workers should run.

        Args:
            queue: Its current state.
            workers: Current number of workers, including those that are starting.
            now: Seconds of a monotonic clock.
        """
        self._learn(queue)
        least, most = self._scaling.min_workers, self._scaling.max_workers
        wanted = min(max(self._needed(queue, workers), least), most)
        self._history.append((now, wanted))
        while len(self._history) > 1 and self._history[1][0] <= now - _IDLE_S:
            self._history.popleft()
        if wanted > workers:
            speed = f"{queue.lag} documents left at {self.documents_per_s:.1f}/s per worker"
            return ScalingDecision(wanted, f"{speed}, within {_TARGET_S:g} s")
        watched_since, _ = self._history[0]
        enough = max(one for _, one in self._history)
        if now - watched_since < _IDLE_S or enough >= workers:
            return ScalingDecision(workers, "")
        state = f"{enough} sufficed" if enough else "there was nothing to do"
        return ScalingDecision(enough, f"{state} for {_IDLE_S:g} s")

    def _needed(self, queue: QueueState, workers: int) -> int:
        # Busy workers that process much are no reason for more; this only keeps workers.
        sustaining = math.ceil(queue.documents_per_s / ((1 - _FREE_SHARE) * self.documents_per_s))
        in_time = math.ceil(queue.lag / (self.documents_per_s * _TARGET_S))
        return max(in_time, min(workers, sustaining))

    def _learn(self, queue: QueueState) -> None:
        """Updates the speed of a worker: the best one reported; only busy workers can lower it."""
        best = max((worker.documents_per_s for worker in queue.workers), default=0.0)
        if best > self._per_s:
            self._per_s = best
        elif best and queue.waiting:
            self._per_s += (best - self._per_s) * _FOLLOW

"""The published live state of the shards of one snapshot, as searches and operators see it."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from nearline.errors import NearlineError
from nearline.times import from_us
from retrieval.live.delta_protocol import DeltaStats, FollowedDelta, FollowedShard
from retrieval.live.progress import LiveState, LiveView, ShardProgress
from retrieval.protocols.watermark import AppliedState

# Shorter outages are not reported as stale: Redis restarts, or fails over.
_STALE_AFTER_S = 5.0
_log = logging.getLogger(__name__)


class FollowProblem(NamedTuple):
    """Why changes are not being followed.

    since: When the problem began, as `time.time()`. log_unavailable: Whether the log itself does
    not answer.
    """

    reason: str
    since: float
    log_unavailable: bool


class PublishedState:
    """The deltas that searches read, and whether they are stale. Belongs to the event loop.

    Args:
        collection: Collection name.
        snapshot_id: The snapshot that the deltas belong to.
        shards: In the order of the deltas.
    """

    def __init__(self, collection: str, snapshot_id: str, shards: Sequence[FollowedShard]) -> None:
        self.collection = collection
        self.snapshot_id = snapshot_id
        self.deltas: Sequence[FollowedDelta] = ()
        self.stats: Sequence[DeltaStats] = ()
        self.caught_up = False
        self.problem: FollowProblem | None = None
        self._shards = tuple(shards)
        self._states: list[LiveState] = []
        self._last_published: list[tuple[LiveView, str]] = []

    def replace(
        self, deltas: Sequence[FollowedDelta], *, caught_up: bool
    ) -> Sequence[FollowedDelta]:
        """Publishes other deltas; returns the previous ones."""
        previous, self.deltas = self.deltas, deltas
        self.caught_up = caught_up
        if not self._states:
            for shard, delta in zip(self._shards, deltas, strict=True):
                state = LiveState(shard.number, shard.partitions, delta.view)
                self._states.append(state)
                self._last_published.append((delta.view, ""))
                shard.attach(state)
        self.publish()
        return previous

    def publish(self) -> None:
        """Publishes the shards whose view or staleness has changed."""
        stale = self._stale_reason()
        for number, delta in enumerate(self.deltas):
            view = delta.view
            last_view, last_stale = self._last_published[number]
            if view is last_view and stale == last_stale:
                continue
            self._last_published[number] = view, stale
            if stale:
                view = dataclasses.replace(
                    view, applied=AppliedState(view.applied.watermark, stale)
                )
            self._states[number].publish(view)

    def report_problem(self, reason: str, *, log_unavailable: bool = False) -> None:
        """Records that changes are not being followed."""
        if self.problem is None:
            _log.warning("live changes are not being followed", extra=self.log_fields(reason))
        since = self.problem.since if self.problem else time.time()
        self.problem = FollowProblem(reason, since, log_unavailable)
        self.publish()

    def report_recovery(self) -> None:
        """Records that changes are being followed."""
        if self.problem is not None:
            _log.info(
                "live changes are being followed again", extra=self.log_fields(self.problem.reason)
            )
            self.problem = None
            self.publish()

    def progress(self, head: Mapping[int, int]) -> Mapping[int, ShardProgress]:
        """Returns the progress by shard number; empty before the first publication.

        Args:
            head: The last known position of each partition.
        """
        problem = self.problem
        away_s = time.time() - problem.since if problem and problem.log_unavailable else None
        progress = {}
        for shard, state, stats in zip(self._shards, self._states, self.stats, strict=False):
            applied, oldest_us = state.view.applied, stats.oldest_change_us
            positions = applied.watermark.positions
            progress[shard.number] = ShardProgress(
                applied=applied,
                rows=stats.rows - stats.dead_rows,
                dead_rows=stats.dead_rows,
                hidden_rows=stats.hidden_rows,
                changes=stats.changes,
                behind=sum(max(0, head.get(one, 0) - positions[one]) for one in shard.partitions),
                away_s=away_s,
                oldest_change=from_us(oldest_us) if oldest_us else None,
            )
        return progress

    def close(self, error: NearlineError) -> Sequence[FollowedDelta]:
        """Fails all waiting requests; returns the deltas, which the caller closes."""
        for state in self._states:
            state.close(error)
        return self.deltas

    def log_fields(self, reason: str) -> dict[str, str]:
        """Returns the fields of a log record."""
        return {
            "collection": self.collection,
            "snapshot_id": self.snapshot_id,
            "reason": reason,
        }

    def _stale_reason(self) -> str:
        problem = self.problem
        if problem and (not self.caught_up or time.time() - problem.since >= _STALE_AFTER_S):
            since = datetime.fromtimestamp(problem.since, UTC)
            return f"live changes are not being followed since {since:%FT%TZ}: {problem.reason}"
        if not self.caught_up:
            return f"live changes since snapshot {self.snapshot_id} are still being applied"
        return ""

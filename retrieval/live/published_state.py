"""What live changes have made of the shards of one snapshot, as searches and operators see it."""

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
from retrieval.live.progress import ShardLiveState, ShardProgress
from retrieval.live.view import LiveView
from retrieval.protocols.shard import AppliedState

# Shorter outages are nobody's concern: Redis restarts, or fails over.
_STALE_AFTER_S = 5.0
_log = logging.getLogger(__name__)


class FollowProblem(NamedTuple):
    """Why changes are not followed, since when (time.time), and whether the log is what is away."""

    reason: str
    since: float
    away: bool


class PublishedState:
    """The deltas that searches look at, and what is said of them. Belongs to the event loop.

    Args:
        collection: Collection name.
        snapshot_id: The snapshot that they lie beside.
        shards: In the order of the deltas.
    """

    def __init__(self, collection: str, snapshot_id: str, shards: Sequence[FollowedShard]) -> None:
        self.collection = collection
        self.snapshot_id = snapshot_id
        self.deltas: Sequence[FollowedDelta] = ()
        self.stats: Sequence[DeltaStats] = ()
        self.caught_up = False
        self.trouble: FollowProblem | None = None
        self._shards = tuple(shards)
        self._lives: list[ShardLiveState] = []
        self._shown: list[tuple[LiveView, str]] = []

    def show(self, deltas: Sequence[FollowedDelta], *, caught_up: bool) -> Sequence[FollowedDelta]:
        """Has searches look at other deltas from now on; gives those before."""
        before, self.deltas = self.deltas, deltas
        self.caught_up = caught_up
        if not self._lives:
            for shard, delta in zip(self._shards, deltas, strict=True):
                live = ShardLiveState(shard.number, shard.partitions, delta.view)
                self._lives.append(live)
                self._shown.append((delta.view, ""))
                shard.attach(live)
        self.publish()
        return before

    def publish(self) -> None:
        """Shows what has changed in the deltas, or in what is to be said of them."""
        stale = self._stale()
        for number, delta in enumerate(self.deltas):
            view = delta.view
            before, said = self._shown[number]
            if view is before and stale == said:
                continue
            self._shown[number] = view, stale
            if stale:
                view = dataclasses.replace(
                    view, applied=AppliedState(view.applied.watermark, stale)
                )
            self._lives[number].publish(view)

    def is_troubled(self, reason: str, *, away: bool = False) -> None:
        """Takes in why changes are not followed; away: the log does not answer."""
        before = self.trouble
        if before is None:
            _log.warning("live changes are not followed", extra=self.about(reason))
        self.trouble = FollowProblem(reason, before.since if before else time.time(), away)
        self.publish()

    def is_well(self) -> None:
        """Takes in that changes are followed."""
        if self.trouble is not None:
            _log.info("live changes are followed again", extra=self.about(self.trouble.reason))
            self.trouble = None
            self.publish()

    def progress(self, head: Mapping[int, int]) -> Mapping[int, ShardProgress]:
        """Returns how far it is, by shard number; empty where nothing is shown yet.

        Args:
            head: By partition, the last change known.
        """
        trouble = self.trouble
        away_s = time.time() - trouble.since if trouble and trouble.away else None
        told = {}
        for shard, live, stats in zip(self._shards, self._lives, self.stats, strict=False):
            applied, oldest_us = live.view.applied, stats.oldest_change_us
            done = applied.watermark.positions
            told[shard.number] = ShardProgress(
                applied=applied,
                rows=stats.rows - stats.dead_rows,
                dead_rows=stats.dead_rows,
                hidden_rows=stats.hidden_rows,
                changes=stats.changes,
                behind=sum(max(0, head.get(one, 0) - done[one]) for one in shard.partitions),
                away_s=away_s,
                oldest_change=from_us(oldest_us) if oldest_us else None,
            )
        return told

    def close(self, error: NearlineError) -> Sequence[FollowedDelta]:
        """Ends the wait of all who wait; gives what is to be closed."""
        for live in self._lives:
            live.close(error)
        return self.deltas

    def about(self, reason: str) -> dict[str, str]:
        """Returns what a line of the log is about."""
        return {
            "collection": self.collection,
            "snapshot_id": self.snapshot_id,
            "reason": reason,
        }

    def _stale(self) -> str:
        trouble = self.trouble
        if trouble and (not self.caught_up or time.time() - trouble.since >= _STALE_AFTER_S):
            since = datetime.fromtimestamp(trouble.since, UTC)
            return f"live changes are not followed since {since:%FT%TZ}: {trouble.reason}"
        if not self.caught_up:
            return f"live changes since snapshot {self.snapshot_id} are still being applied"
        return ""

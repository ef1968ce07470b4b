"""Followers of change logs for all snapshots loaded in this process."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from nearline.store.snapshot import Store
from retrieval.changelog.change_log import AbsentLog, ChangeLog
from retrieval.changelog.retention import followable_logs
from retrieval.embedders.endpoints import Embedders
from retrieval.index.thread_pool import ThreadPool
from retrieval.live.delta_protocol import FollowedShard
from retrieval.live.log_follower import LogFollower
from retrieval.live.progress import ShardProgress
from retrieval.live.reembedder import Reembedder, make_bulk_embed
from retrieval.protocols import metrics
from retrieval.protocols.snapshot import SnapshotRef
from retrieval.snapshots.loaded_snapshots import SnapshotKey

_TICK_S = 1.0
# Changes are applied in Python, and a concurrent search needs the interpreter lock after every call
# of an engine. With Python's default switch interval of 5 ms, the p99 of searches was 92 ms while
# texts were applied; with 1 ms, 10 ms. From 0.2 ms to this value, `bench live --embedded` improved
# from 2.5 to 1.9 times the p99 at rest.
_SWITCH_S = 0.00005
_log = logging.getLogger(__name__)


class LiveChanges:
    """Applies live changes to the shards of this process.

    worker: The single thread that changes deltas in memory.

    Args:
        store: Names the logs.
        new_reader: Returns a log object for one reader of a collection; None if no Redis is
            configured. Collections with a log are then served from their snapshot alone, and marked
            stale.
        embedders: Optional; embed changes without vectors of a snapshot's model.
        allow_stale: Serve snapshots even if their log is unavailable or does not match.
    """

    def __init__(
        self,
        store: Store,
        new_reader: Callable[[str], ChangeLog] | None,
        *,
        embedders: Embedders | None = None,
        allow_stale: bool = False,
    ) -> None:
        self._store = store
        self._new_reader = new_reader
        self._embed = None if embedders is None else make_bulk_embed(embedders)
        self._allow_stale = allow_stale
        self.worker = ThreadPool(1)
        self._followers: dict[SnapshotKey, LogFollower] = {}
        self._tick_task: asyncio.Task[None] | None = None

    async def begin(
        self, snapshot: SnapshotRef, shards: Sequence[FollowedShard]
    ) -> LogFollower | None:
        """Starts to follow the log for a snapshot; await `LogFollower.ready` to catch up.

        Returns: None if the collection has no log and thus no live changes.
        """
        name = snapshot.collection
        logs = partial(followable_logs, self._store, name)
        log: ChangeLog | None = None
        if self._new_reader is not None:
            log = self._new_reader(name)
        elif await asyncio.to_thread(logs):
            log = AbsentLog(name)
        if log is None or not shards:
            return None
        manifest = snapshot.manifest
        follower = LogFollower(
            log,
            manifest,
            shards,
            logs=logs,
            vectors=Reembedder(
                collection=name,
                fingerprint=manifest.embedder.fingerprint,
                dim=manifest.dim,
                embed=self._embed,
            ),
            allow_stale=self._allow_stale or self._new_reader is None,
        )
        self._followers[SnapshotKey(name, snapshot.snapshot_id)] = follower
        if self._tick_task is None:
            sys.setswitchinterval(_SWITCH_S)
            self._tick_task = asyncio.ensure_future(self._tick())
        return follower

    async def end(self, follower: LogFollower) -> None:
        """Stops a follower; no search of its snapshot may be running any more."""
        for key, other in tuple(self._followers.items()):
            if other is follower:
                del self._followers[key]
        await follower.stop()

    def progress(self, collection: str, snapshot_id: str) -> Mapping[int, ShardProgress]:
        """Returns the progress of a snapshot by shard number; empty if it has no follower."""
        follower = self._followers.get(SnapshotKey(collection, snapshot_id))
        return {} if follower is None else follower.progress()

    async def close(self) -> None:
        """Stops all followers; no search may be running any more."""
        if self._tick_task is not None:
            self._tick_task.cancel()
            await asyncio.wait((self._tick_task,))
        for follower in tuple(self._followers.values()):
            await self.end(follower)
        await asyncio.to_thread(self.worker.close)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            now = datetime.now(UTC)
            # Metrics of a collection are those of its most recently loaded snapshot.
            newest = {}
            for follower in tuple(self._followers.values()):
                try:
                    await follower.tick(now)
                except Exception:
                    _log.exception("expired documents cannot be removed")
                newest[follower.collection] = follower
            for follower in newest.values():
                _measure(follower, now)


def _measure(follower: LogFollower, now: datetime) -> None:
    name = follower.collection
    progress = follower.progress().values()
    problem = follower.problem
    metrics.changes_behind.labels(name).set(sum(one.behind for one in progress))
    metrics.change_lag_seconds.labels(name).set(follower.lag_s)
    metrics.log_away_seconds.labels(name).set(time.time() - problem.since if problem else 0)
    oldest = [one.oldest_change for one in progress if one.oldest_change is not None]
    age_s = (now - min(oldest)).total_seconds() if oldest else 0.0
    metrics.oldest_change_seconds.labels(name).set(max(0.0, age_s))
    for state, rows in (
        ("served", sum(one.rows for one in progress)),
        ("dead", sum(one.dead_rows for one in progress)),
        ("hidden", sum(one.hidden_rows for one in progress)),
    ):
        metrics.live_rows.labels(name, state).set(rows)

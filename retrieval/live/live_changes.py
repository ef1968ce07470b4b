"""Live changes beside all snapshots that this process holds: followed, told of, let go of."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from nearline.snapshot import Store
from retrieval.changelog.change_log import ChangeLog
from retrieval.changelog.retention import followable_logs
from retrieval.changelog.unavailable_log import AbsentLog
from retrieval.embedders.endpoints import Embedders
from retrieval.index.thread_pool import ThreadPool
from retrieval.live.delta_protocol import FollowedShard
from retrieval.live.log_follower import LogFollower
from retrieval.live.progress import ShardProgress
from retrieval.live.reembedder import Reembedder, make_bulk_embed
from retrieval.protocols import metrics
from retrieval.protocols.snapshot import SnapshotRef
from retrieval.snapshots.loaded import SnapshotKey

_TICK_S = 1.0
# Applying changes is work in Python, and a search beside it asks for the interpreter after every
# call of an engine: with Python's own 5 ms its p99 was 92 ms while texts were applied, with 1 ms
# 10 ms; `bench live --embedded` went from 2.5 to 1.9 times its p99 at rest between 0.2 ms and this.
_SWITCH_S = 0.00005
_log = logging.getLogger(__name__)


class LogReaderProvider(Protocol):
    """The change logs of one Redis."""

    def reader(self, collection: str) -> ChangeLog:
        """Returns the log of a collection, for one who reads it."""
        ...


class LiveChanges:
    """Applies live changes to the shards of this process, one after another.

    worker: One thread for what changes deltas in memory.

    Args:
        store: Where the names of the logs stand.
        logs: The logs; None: the service was not told of any. What has one is then served as the
            snapshot has it, and said to be stale.
        embedders: Embed changes that came without vectors of a snapshot's model; None: nobody does.
        allow_stale: Serve a snapshot although its log is away or is none that it can follow.
    """

    def __init__(
        self,
        store: Store,
        logs: LogReaderProvider | None,
        *,
        embedders: Embedders | None = None,
        allow_stale: bool = False,
    ) -> None:
        self._store = store
        self._logs = logs
        self._embed = None if embedders is None else make_bulk_embed(embedders)
        self._allow_stale = allow_stale
        self.worker = ThreadPool(1)
        self._followings: dict[SnapshotKey, LogFollower] = {}
        self._ticking: asyncio.Task[None] | None = None

    async def begin(
        self, snapshot: SnapshotRef, shards: Sequence[FollowedShard]
    ) -> LogFollower | None:
        """Follows the log for a snapshot from now on; `LogFollower.ready` tells when it is there.

        Returns: None: the collection has no log, so that nothing can be changed.
        """
        name = snapshot.collection
        logs = partial(followable_logs, self._store, name)
        log: ChangeLog | None = None
        if self._logs is not None:
            log = self._logs.reader(name)
        elif await asyncio.to_thread(logs):
            log = AbsentLog(name)
        if log is None or not shards:
            return None
        manifest = snapshot.manifest
        following = LogFollower(
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
            allow_stale=self._allow_stale or self._logs is None,
        )
        self._followings[SnapshotKey(name, snapshot.snapshot_id)] = following
        if self._ticking is None:
            sys.setswitchinterval(_SWITCH_S)
            self._ticking = asyncio.ensure_future(self._tick())
        return following

    async def end(self, following: LogFollower) -> None:
        """Stops following for a snapshot; no search of it may be running any more."""
        for key, other in tuple(self._followings.items()):
            if other is following:
                del self._followings[key]
        await following.stop()

    def progress(self, collection: str, snapshot_id: str) -> Mapping[int, ShardProgress]:
        """Tells by shard number how far a snapshot is; empty where nothing is followed for it."""
        following = self._followings.get(SnapshotKey(collection, snapshot_id))
        return {} if following is None else following.progress()

    async def close(self) -> None:
        """Stops all; no search may be running any more."""
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.wait((self._ticking,))
        for following in tuple(self._followings.values()):
            await self.end(following)
        await asyncio.to_thread(self.worker.close)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            now = datetime.now(UTC)
            # Of several snapshots of a collection the one loaded last tells its measures.
            newest = {}
            for following in tuple(self._followings.values()):
                try:
                    await following.tick(now)
                except Exception:
                    _log.exception("what is past its time cannot be taken out")
                newest[following.collection] = following
            for following in newest.values():
                _measure(following, now)


def _measure(following: LogFollower, now: datetime) -> None:
    name = following.collection
    progress = following.progress().values()
    problem = following.problem
    metrics.changes_behind.labels(name).set(sum(one.behind for one in progress))
    metrics.change_lag_seconds.labels(name).set(following.lag_s)
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

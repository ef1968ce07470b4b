"""In-memory deltas of the loaded shards of a snapshot, changed in one worker thread."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from retrieval.changelog.change_log import ChangeLog
from retrieval.changelog.records import ChangeEntry
from retrieval.index.thread_pool import ThreadPool
from retrieval.live.delta import LiveDelta
from retrieval.live.delta_protocol import DeltaStats, FollowedDelta, FollowedShard
from retrieval.live.graphs import build_in_process
from retrieval.live.view import LiveView
from retrieval.protocols.watermark import Watermark
from retrieval.shards.loader import LoadedShard


class ThreadedDelta:
    """A delta in memory; a `FollowedDelta`.

    Args:
        delta: The delta.
        worker: A pool of one thread, in which all changes of the delta run.
    """

    def __init__(self, delta: LiveDelta, worker: ThreadPool) -> None:
        self._delta = delta
        self._worker = worker

    @property
    def view(self) -> LiveView:
        """The newest state."""
        return self._delta.view

    async def apply(self, entries: Sequence[ChangeEntry]) -> None:
        """Applies changes; see `LiveDelta.apply`."""
        await self._worker.call(lambda: self._delta.apply(entries))

    async def expire(self, now: datetime) -> None:
        """Hides expired items; see `LiveDelta.expire`."""
        await self._worker.call(lambda: self._delta.expire(now))

    def set_back(self, reason: str) -> None:
        """Does nothing: a new delta, built from the snapshot, will replace this one."""

    def stats(self) -> DeltaStats:
        """Returns the size of the delta."""
        return self._delta.stats()

    async def close(self) -> None:
        """Stops background work."""
        await self._worker.call(self._delta.close)


def make_followed_shard(loaded: LoadedShard, worker: ThreadPool) -> FollowedShard:
    """Returns a loaded shard with a delta in memory, to which live changes are applied.

    Args:
        worker: The pool of one thread of `LiveChanges`.
    """
    (entry,) = (one for one in loaded.manifest.shards if one.shard == loaded.number)
    partitions = frozenset(entry.partitions)

    async def new_delta(start: Watermark, log: ChangeLog | None) -> FollowedDelta:
        positions = (at if n in partitions else 0 for n, at in enumerate(start.positions))

        def make() -> LiveDelta:
            return LiveDelta(
                loaded.shard.base,
                loaded.manifest,
                loaded.vocabulary,
                loaded.number,
                Watermark(start.log_id, tuple(positions)),
                build_in_process,
            )

        return ThreadedDelta(await worker.call(make), worker)

    return FollowedShard(
        number=loaded.number,
        partitions=tuple(sorted(partitions)),
        new_delta=new_delta,
        attach=loaded.shard.attach,
    )

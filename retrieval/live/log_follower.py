"""Keeps the shards of one loaded snapshot up to date with the change log of their collection."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from nearline.errors import NearlineError, NotReady, SnapshotMismatch
from nearline.retry import Backoff, ErrorTypes, retry
from nearline.v1 import snapshot_pb2
from retrieval.changelog.change_log import ChangeLog, LogDiverged
from retrieval.changelog.records import Change, ChangeEntry, ChangeKind
from retrieval.changelog.start_position import watermark_of
from retrieval.changelog.tail import LogTail
from retrieval.index.weak_methods import weak_method
from retrieval.live.delta_protocol import ChangeUnusable, FollowedDelta, FollowedShard
from retrieval.live.progress import ShardProgress
from retrieval.live.published_state import FollowProblem, PublishedState
from retrieval.live.reembedder import Reembedder
from retrieval.protocols import metrics
from retrieval.protocols.watermark import Watermark

_ENTRIES_PER_READ = 16
_BACKOFF = Backoff(0.1, 5.0, jitter=(0.5, 1.0))
_R = TypeVar("_R")
# Takes the place of a change that cannot be applied: there is no such item to delete.
_NOTHING = Change(document_id="", kind=ChangeKind.DELETE)
_log = logging.getLogger(__name__)


class LogFollower:
    """Applies the changes of a log to the shards of one snapshot; searches see each change whole.

        locate (from the snapshot's watermark) -> catch up -> follow -> log was set back -> locate

    Whatever happens to the log, the published state stays in service; if it falls behind, it is
    marked as stale. Belongs to the event loop.

    Args:
        log: The log of the collection, not shared with another reader.
        manifest: Manifest of the snapshot.
        shards: Shards to apply changes to; at least one.
        logs: See `LogTail`.
        vectors: Completes changes that lack vectors of the snapshot's model.
        allow_stale: Become ready even if the log is unavailable or does not match the snapshot.
    """

    def __init__(
        self,
        log: ChangeLog,
        manifest: snapshot_pb2.Manifest,
        shards: Sequence[FollowedShard],
        *,
        logs: Callable[[], Sequence[str]],
        vectors: Reembedder,
        allow_stale: bool = False,
    ) -> None:
        self.collection = log.collection
        self._log = log
        self._manifest = manifest
        self._shards = tuple(shards)
        self._shard_of = {one: n for n, shard in enumerate(shards) for one in shard.partitions}
        self._vectors = vectors
        self._allow_stale = allow_stale
        self._published = PublishedState(log.collection, manifest.snapshot_id, shards)
        self._tail = LogTail(
            log,
            logs,
            weak_method(self._report_outage),
            partitions=self._shard_of,
            limit=_ENTRIES_PER_READ,
            backoff=_BACKOFF,
        )
        # Deltas that catch up, to replace the published ones.
        self._replacement: Sequence[FollowedDelta] = ()
        self._unapplied_us = 0
        # Partitions and positions of changes that cannot be applied.
        self._set_aside: set[tuple[int, int]] = set()
        metrics.changes_refused.labels(self.collection)
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = asyncio.ensure_future(self._run())

    @property
    def problem(self) -> FollowProblem | None:
        """Why changes are not being followed; None while they are."""
        return self._published.problem

    @property
    def lag_s(self) -> float:
        """Age of the oldest change that was read but not yet applied; 0 if there is none."""
        return max(0.0, time.time() - self._unapplied_us / 1e6) if self._unapplied_us else 0.0

    async def ready(self) -> None:
        """Returns once everything that the log contained at the start is applied.

        Raises: SnapshotMismatch: the snapshot cannot follow the current log.
        """
        await asyncio.shield(self._ready)

    async def tick(self, now: datetime) -> None:
        """Removes expired documents, and updates whether the published state counts as stale."""
        if deltas := self._published.deltas:
            await _expire(deltas, now)
            if deltas is self._published.deltas:
                self._published.stats = [delta.stats() for delta in deltas]
            self._published.publish()

    def progress(self) -> Mapping[int, ShardProgress]:
        """Returns the progress by shard number; empty before the first state is published."""
        return self._published.progress(self._tail.head)

    async def stop(self) -> None:
        """Stops; no search may be running any more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
            _forget_frames(task)
        self._ready.cancel()
        gone = NotReady(f"snapshot {self._manifest.snapshot_id} is being unloaded; try again")
        await _close((*self._published.close(gone), *self._replacement))

    async def _run(self) -> None:
        delays = _BACKOFF.delays()
        while True:
            try:
                await self._follow(await self._locate())
            except SnapshotMismatch as error:
                if not self._ready.done() and not self._allow_stale:
                    self._ready.set_exception(error)
                    return
                # The positions may be those of other changes now.
                self._set_aside.clear()
                if isinstance(error, LogDiverged):
                    for delta in self._replacement or self._published.deltas:
                        delta.set_back(error.message)
                about = self._published.log_fields(error.message)
                _log.warning("live changes are being applied again", extra=about)
                metrics.delta_rebuilds.labels(self.collection).inc()
            except ChangeUnusable as error:
                one = error.entry
                self._set_aside.add((one.partition, one.position))
                metrics.changes_refused.labels(self.collection).inc()
                _log.exception(
                    "change skipped: it cannot be applied; the item stays as it was",
                    extra={
                        "collection": self.collection,
                        "id": one.change.document_id,
                        "version": one.position,
                    },
                )
            except NearlineError as error:
                self._report(error)
            except Exception as error:
                # Whatever went wrong, the published state stays in service.
                _log.exception(
                    "live changes cannot be applied", extra=self._published.log_fields("")
                )
                self._report_problem(f"{type(error).__name__}: {error}")
            if self._published.caught_up:
                self._published.caught_up, delays = False, _BACKOFF.delays()
                self._published.publish()
            await asyncio.sleep(next(delays))

    async def _locate(self) -> Watermark:
        """Returns the position to start from, as soon as it is known."""
        delays = _BACKOFF.delays()
        while True:
            try:
                return await self._tail.locate(self._manifest)
            except SnapshotMismatch as error:
                if not self._ready.done() and not self._allow_stale:
                    raise
                self._report(error)
            except NearlineError as error:
                self._report_outage(error)
                if self._tail.log_ids is not None and not self._tail.log_ids:
                    # Without a log, there are no changes.
                    self._set_ready()
            logs = self._tail.log_ids
            if self._allow_stale and logs and not self._published.deltas:
                contained = watermark_of(self._manifest)
                start = Watermark(contained.log_id or logs[-1], contained.positions)
                await self._publish(await self._new_deltas(start, None), caught_up=False)
                self._set_ready()
            await asyncio.sleep(next(delays))

    async def _follow(self, start: Watermark) -> None:
        """Applies changes from a position for as long as the log continues from it."""
        await _close(self._replacement)
        self._replacement = ()
        deltas = self._replacement = await self._following_deltas(start)
        self._tail.seek(
            {
                partition: deltas[shard].view.applied.watermark.positions[partition]
                for partition, shard in self._shard_of.items()
            }
        )
        if not self._published.deltas:
            self._replacement = ()
            await self._publish(deltas, caught_up=False)
        while True:
            if not self._published.caught_up and self._tail.at_initial_head:
                self._replacement = ()
                await self._publish(deltas, caught_up=True)
                self._set_ready()
            entries = await self._tail.read()
            self._published.report_recovery()
            for batch in self._vectors.batches(entries):
                self._unapplied_us = min(entry.time_us for entry in batch)
                await self._apply(deltas, await self._completed(batch))
                self._published.publish()
            self._unapplied_us = 0

    async def _completed(self, entries: Sequence[ChangeEntry]) -> Sequence[ChangeEntry]:
        """Returns the entries with the vectors they need, retrying until that succeeds."""
        return await self._retry(lambda: self._vectors.complete(entries))

    async def _apply(self, deltas: Sequence[FollowedDelta], entries: Sequence[ChangeEntry]) -> None:
        """Applies entries to the deltas of their shards, retrying until that succeeds."""
        by_shard: dict[int, list[ChangeEntry]] = {}
        for entry in entries:
            if (entry.partition, entry.position) in self._set_aside:
                entry = entry._replace(change=_NOTHING)
            by_shard.setdefault(self._shard_of[entry.partition], []).append(entry)
        for number, own_entries in by_shard.items():
            await self._retry(partial(deltas[number].apply, own_entries), unless=SnapshotMismatch)
        metrics.changes_applied.labels(self.collection).inc(len(entries))

    async def _retry(self, call: Callable[[], Awaitable[_R]], *, unless: ErrorTypes = ()) -> _R:
        result = await retry(
            call,
            on=NearlineError,
            unless=unless,
            delays=_BACKOFF.delays(),
            heed_retry_after=False,
            on_failure=self._report,
        )
        self._published.report_recovery()
        return result

    async def _following_deltas(self, start: Watermark) -> Sequence[FollowedDelta]:
        """Creates deltas that follow the log."""
        try:
            return await self._new_deltas(start, self._log)
        except SnapshotMismatch as error:
            if self._allow_stale and not self._published.deltas:
                await self._publish(await self._new_deltas(start, None), caught_up=False)
            self._report(error)
            raise

    async def _new_deltas(self, start: Watermark, log: ChangeLog | None) -> Sequence[FollowedDelta]:
        deltas = [await shard.new_delta(start, log) for shard in self._shards]
        await _expire(deltas, datetime.now(UTC))
        return deltas

    async def _publish(self, deltas: Sequence[FollowedDelta], *, caught_up: bool) -> None:
        previous = self._published.replace(deltas, caught_up=caught_up)
        self._published.stats = [delta.stats() for delta in deltas]
        if previous is not deltas:
            await _close(previous)

    def _set_ready(self) -> None:
        if not self._ready.done():
            self._ready.set_result(None)

    def _report(self, error: NearlineError) -> None:
        self._report_problem(error.message)

    def _report_outage(self, error: NearlineError) -> None:
        self._report_problem(error.message, log_unavailable=True)

    def _report_problem(self, reason: str, *, log_unavailable: bool = False) -> None:
        self._published.report_problem(reason, log_unavailable=log_unavailable)
        if self._allow_stale and self._published.deltas:
            self._set_ready()


async def _close(deltas: Sequence[FollowedDelta]) -> None:
    for delta in deltas:
        await delta.close()


async def _expire(deltas: Sequence[FollowedDelta], now: datetime) -> None:
    for delta in deltas:
        await delta.expire(now)


def _forget_frames(task: asyncio.Task[None]) -> None:
    """Clears the frames of a task that was cancelled.

    Its error keeps them, and clients of the network keep the error: with the frames, the memory of
    the snapshot would stay until they are garbage, or for good.
    """
    try:
        task.exception()
    except asyncio.CancelledError as error:
        traceback.clear_frames(error.__traceback__)

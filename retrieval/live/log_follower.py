"""Follows the change log of a collection for the shards of one loaded snapshot."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from nearline.errors import NearlineError, NotReady, SnapshotMismatch
from nearline.retry import Backoff, ErrorTypes, retry
from nearline.v1 import snapshot_pb2
from retrieval.changelog.change_log import ChangeLog, LogDiverged
from retrieval.changelog.records import ChangeEntry
from retrieval.changelog.start_position import start_position, watermark_of
from retrieval.live.delta_protocol import FollowedDelta, FollowedShard
from retrieval.live.progress import ShardProgress
from retrieval.live.published_state import FollowProblem, PublishedState
from retrieval.live.reembedder import Reembedder
from retrieval.protocols import metrics
from retrieval.protocols.watermark import Watermark

# Changes of one partition read at once.
_LIMIT = 16
# Every read asks for 64 streams and makes a new view, however little has come: while writes go on
# without a pause they are taken together. What comes alone is read at once.
_GAP_S = 0.05
# After so many of one partition there may be more: ask, now and then, how far the log goes.
_MANY = 8
_LOOK_S = 1.0
_WAIT_S = 1.0
_BACKOFF = Backoff(0.1, 5.0, jitter=(0.5, 1.0))
_R = TypeVar("_R")
_log = logging.getLogger(__name__)


class LogFollower:
    """Keeps shards of one snapshot at the head of the log; their searches see each change whole.

        begin (from the snapshot's watermark) -> catch up -> follow -> the log was set back -> begin

    What is served goes on being served, whatever becomes of the log: it only grows older, and says
    so. Belongs to the event loop.

    Args:
        log: The log of the collection.
        manifest: Of the snapshot.
        shards: What to apply changes to; at least one.
        logs: Reads which logs the store names, in a thread: that in force last, before it those
            that it goes on from; none: there is none yet.
        vectors: Completes changes that lack vectors of the snapshot's model.
        allow_stale: Be ready without the log, or with one that the snapshot cannot follow.
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
        self._read_logs = logs
        self._vectors = vectors
        self._allow_stale = allow_stale
        self._served = PublishedState(log.collection, manifest.snapshot_id, shards)
        # What is being made to take the place of what is served.
        self._fresh: Sequence[FollowedDelta] = ()
        self._head: dict[int, int] = {}
        self._look_at = self._read_at = 0.0
        self._unapplied_us = 0
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.ensure_future(self._run())

    @property
    def trouble(self) -> FollowProblem | None:
        """Why changes are not followed now; None: they are."""
        return self._served.trouble

    @property
    def lag_s(self) -> float:
        """Age of the oldest change that was read and is not applied; 0: there is none."""
        return max(0.0, time.time() - self._unapplied_us / 1e6) if self._unapplied_us else 0.0

    async def ready(self) -> None:
        """Returns once all that was in the log when it began is applied.

        Raises: SnapshotMismatch: the log in force is none that the snapshot can follow.
        """
        await asyncio.shield(self._ready)

    async def tick(self, now: datetime) -> None:
        """Takes out what is past its time, and says again whether what is served may be stale."""
        if deltas := self._served.deltas:
            await _expire(deltas, now)
            if deltas is self._served.deltas:
                self._served.stats = [delta.stats() for delta in deltas]
            self._served.publish()

    def progress(self) -> Mapping[int, ShardProgress]:
        """Returns how far it is, by shard number; empty where there is no log yet."""
        return self._served.progress(self._head)

    async def stop(self) -> None:
        """Stops; no search may be running any more."""
        self._task.cancel()
        await asyncio.wait((self._task,))
        self._ready.cancel()
        gone = NotReady(f"snapshot {self._manifest.snapshot_id} is being let go of; try again")
        await self._discard((*self._served.close(gone), *self._fresh))

    async def _run(self) -> None:
        delays = _BACKOFF.delays()
        while True:
            try:
                await self._follow(*await self._begin())
            except SnapshotMismatch as error:
                if not self._ready.done() and not self._allow_stale:
                    self._ready.set_exception(error)
                    return
                if isinstance(error, LogDiverged):
                    for delta in self._fresh or self._served.deltas:
                        delta.set_back(error.message)
                about = self._served.about(error.message)
                _log.warning("live changes are applied again", extra=about)
                metrics.delta_rebuilds.labels(self.collection).inc()
            except NearlineError as error:
                self._is_troubled(error.message)
            except Exception as error:
                # Whatever it was, what is served goes on being served.
                _log.exception("live changes cannot be applied", extra=self._served.about(""))
                self._is_troubled(f"{type(error).__name__}: {error}")
            if self._served.caught_up:
                self._served.caught_up, delays = False, _BACKOFF.delays()
                self._served.publish()
            await asyncio.sleep(next(delays))

    async def _begin(self) -> tuple[Watermark, Watermark]:
        """Returns where to start, and the head of the log, once both are known."""
        delays = _BACKOFF.delays()
        while True:
            logs: Sequence[str] | None = None
            try:
                logs = await asyncio.to_thread(self._read_logs)
                # Asking makes the log where there is none.
                state = await self._log.state()
                logs = logs or await asyncio.to_thread(self._read_logs)
                return start_position(self._manifest, logs, state, self._shard_of), state.head
            except SnapshotMismatch as error:
                if not self._ready.done() and not self._allow_stale:
                    raise
                self._is_troubled(error.message)
            except NearlineError as error:
                self._is_troubled(error.message, away=True)
                if logs is not None and not logs:
                    # Nothing can have been changed without a log.
                    self._is_ready()
            if self._allow_stale and logs and not self._served.deltas:
                known = watermark_of(self._manifest)
                start = Watermark(known.log_id or logs[-1], known.positions)
                await self._show(await self._new_deltas(start, None), caught_up=False)
                self._is_ready()
            await asyncio.sleep(next(delays))

    async def _follow(self, start: Watermark, head: Watermark) -> None:
        """Applies what comes after a position for as long as the log goes on from there."""
        self._head = {one: head.positions[one] for one in self._shard_of}
        await self._discard(self._fresh)
        self._fresh = ()
        deltas = self._fresh = await self._begun(start)
        at = {one: _reached(deltas[shard], one) for one, shard in self._shard_of.items()}
        if not self._served.deltas:
            self._fresh = ()
            await self._show(deltas, caught_up=False)
        while True:
            if not self._served.caught_up and all(at[one] >= head.positions[one] for one in at):
                self._fresh = ()
                await self._show(deltas, caught_up=True)
                self._is_ready()
            for piece in self._vectors.pieces(await self._read(start.log_id, at)):
                self._unapplied_us = min(entry.time_us for entry in piece)
                await self._apply(deltas, await self._completed(piece))
                at |= {entry.partition: entry.position for entry in piece}
                self._served.publish()
            self._unapplied_us = 0

    async def _read(self, log_id: str, at: Mapping[int, int]) -> Sequence[ChangeEntry]:
        """Reads what comes next, however long the log is away."""

        async def read() -> Sequence[ChangeEntry]:
            await asyncio.sleep(self._read_at + _GAP_S - time.monotonic())
            self._read_at = time.monotonic()
            entries = await self._log.read(at, limit=_LIMIT, wait_s=_WAIT_S)
            many = Counter(entry.partition for entry in entries).most_common(1)
            if many and many[0][1] >= _MANY and time.monotonic() >= self._look_at:
                await self._look_ahead(log_id)
            return entries

        entries = await self._retry(read, unless=SnapshotMismatch, away=True)
        for entry in entries:
            self._head[entry.partition] = max(self._head[entry.partition], entry.position)
        return entries

    async def _look_ahead(self, log_id: str) -> None:
        head = (await self._log.state()).head
        if head.log_id != log_id:
            raise SnapshotMismatch(
                f"change log {head.log_id} has taken the place of {log_id}, which is followed here"
            )
        self._look_at = time.monotonic() + _LOOK_S
        self._head = {one: max(at, head.positions[one]) for one, at in self._head.items()}

    async def _completed(self, entries: Sequence[ChangeEntry]) -> Sequence[ChangeEntry]:
        """Returns entries that have the vectors they need, however long that takes."""
        return await self._retry(lambda: self._vectors.complete(entries))

    async def _apply(self, deltas: Sequence[FollowedDelta], entries: Sequence[ChangeEntry]) -> None:
        by_shard: dict[int, list[ChangeEntry]] = {}
        for entry in entries:
            by_shard.setdefault(self._shard_of[entry.partition], []).append(entry)
        for number, mine in by_shard.items():
            await self._apply_to(deltas[number], mine)
        metrics.changes_applied.labels(self.collection).inc(len(entries))

    async def _apply_to(self, delta: FollowedDelta, entries: Sequence[ChangeEntry]) -> None:
        """Applies entries to one shard, however long that takes."""
        await self._retry(lambda: delta.apply(entries), unless=SnapshotMismatch)

    async def _retry(
        self, step: Callable[[], Awaitable[_R]], *, unless: ErrorTypes = (), away: bool = False
    ) -> _R:
        """Takes a step until it succeeds; reports trouble meanwhile."""
        result = await retry(
            step,
            on=NearlineError,
            unless=unless,
            delays=_BACKOFF.delays(),
            heed_retry_after=False,
            on_failure=lambda error: self._is_troubled(error.message, away=away),
        )
        self._served.is_well()
        return result

    async def _begun(self, start: Watermark) -> Sequence[FollowedDelta]:
        """Makes deltas to follow the log with."""
        try:
            return await self._new_deltas(start, self._log)
        except SnapshotMismatch as error:
            if self._allow_stale and not self._served.deltas:
                await self._show(await self._new_deltas(start, None), caught_up=False)
            self._is_troubled(error.message)
            raise

    async def _new_deltas(self, start: Watermark, log: ChangeLog | None) -> Sequence[FollowedDelta]:
        deltas = [await shard.new_delta(start, log) for shard in self._shards]
        await _expire(deltas, datetime.now(UTC))
        return deltas

    async def _show(self, deltas: Sequence[FollowedDelta], *, caught_up: bool) -> None:
        before = self._served.show(deltas, caught_up=caught_up)
        self._served.stats = [delta.stats() for delta in deltas]
        if before is not deltas:
            await self._discard(before)

    async def _discard(self, deltas: Sequence[FollowedDelta]) -> None:
        for delta in deltas:
            await delta.close()

    def _is_ready(self) -> None:
        if not self._ready.done():
            self._ready.set_result(None)

    def _is_troubled(self, reason: str, *, away: bool = False) -> None:
        self._served.is_troubled(reason, away=away)
        if self._allow_stale and self._served.deltas:
            self._is_ready()


async def _expire(deltas: Sequence[FollowedDelta], now: datetime) -> None:
    for delta in deltas:
        await delta.expire(now)


def _reached(delta: FollowedDelta, partition: int) -> int:
    return delta.view.applied.watermark.positions[partition]

"""Follows the change log of a collection, so that hot lists heed what was changed or deleted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from nearline.errors import NearlineError, NotReady
from nearline.retry import Backoff
from nearline.v1 import snapshot_pb2
from retrieval.cache.cached_list import CachedList
from retrieval.cache.recent_changes import ItemChange, RecentChanges, ValidatedList
from retrieval.changelog.change_log import ChangeLog
from retrieval.changelog.start_position import start_position, watermark_of
from retrieval.protocols.watermark import Watermark

# As those who follow it for a shard: what comes alone is read at once, a stream of changes is taken
# together.
_GAP_S = 0.05
_WAIT_S = 1.0
_BACKOFF = Backoff(0.1, 2.0, jitter=(0.5, 1.0))
_log = logging.getLogger(__name__)


class ChangeTracker:
    """Knows which items of a collection were touched since the snapshot in force.

        begin (from the snapshot's watermark) -> catch up -> follow -> the log was set back -> begin

    While the log is away, or is none that the snapshot can follow, what is known stays in use.

    Args:
        log: A reader of the log of its own.
        manifest: Of the snapshot in force.
        logs: Reads which logs the store names, in a thread: that in force last, before it those
            that it goes on from.
        limit: Most items that are known one by one, see `RecentChanges`.
    """

    def __init__(
        self,
        log: ChangeLog,
        manifest: snapshot_pb2.Manifest,
        *,
        logs: Callable[[], Sequence[str]],
        limit: int = 100_000,
    ) -> None:
        self.collection = log.collection
        self.stale_reason = f"change log of {log.collection!r}: not read to its end yet"
        self._log = log
        self._manifest = manifest
        self._read_logs = logs
        self._limit = limit
        self._known = RecentChanges(watermark_of(manifest), limit)
        self._delays = _BACKOFF.delays()
        self._task: asyncio.Task[None] | None = None

    @property
    def items(self) -> Mapping[str, ItemChange]:
        """The last change of each item touched, by id."""
        return self._known.items

    async def start(self) -> None:
        """Begins to follow; does not wait for the log."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Ends; what is known stays."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def rebase(self, manifest: snapshot_pb2.Manifest) -> None:
        """Goes on from another snapshot: forgets the changes that it has."""
        self._manifest = manifest
        self._known.forget(watermark_of(manifest))

    def read(self, hot: CachedList | None, item: str = "") -> ValidatedList:
        """Applies to a list what was changed since it was made; see `RecentChanges.read`."""
        return self._known.read(hot, item)

    async def _run(self) -> None:
        while True:
            try:
                await self._follow(*await self._begin())
            except NearlineError as error:
                self._is_stale(error.message)
            except Exception as error:
                _log.exception("touched items cannot be followed")
                self._is_stale(f"{type(error).__name__}: {error}")
            await asyncio.sleep(next(self._delays))

    async def _begin(self) -> tuple[Watermark, Watermark]:
        """Returns where to start, and the head of the log."""
        # Asking makes the log where there is none.
        head = (state := await self._log.state()).head
        logs = await asyncio.to_thread(self._read_logs)
        return start_position(self._manifest, logs, state), head

    async def _follow(self, start: Watermark, head: Watermark) -> None:
        """Takes in what comes after a position for as long as the log goes on from there."""
        at = dict(enumerate(start.positions))
        # What was known of a log that was set back may never have been.
        fresh = RecentChanges(start, self._limit)
        read_at = 0.0
        while True:
            if self._known is not fresh and all(at[n] >= head.positions[n] for n in at):
                self._known = fresh
                self._is_well()
            await asyncio.sleep(read_at + _GAP_S - time.monotonic())
            read_at = time.monotonic()
            try:
                entries = await self._log.read(at, wait_s=_WAIT_S)
            except NotReady as error:
                self._is_stale(error.message)
                await asyncio.sleep(next(self._delays))
                continue
            fresh.add(entries)
            at |= {entry.partition: entry.position for entry in entries}
            if self._known is fresh:
                self._is_well()

    def _is_well(self) -> None:
        self.stale_reason, self._delays = "", _BACKOFF.delays()

    def _is_stale(self, reason: str) -> None:
        if reason != self.stale_reason:
            self.stale_reason = reason
            about = {"collection": self.collection, "reason": reason}
            _log.warning("what was changed lately is not known here", extra=about)

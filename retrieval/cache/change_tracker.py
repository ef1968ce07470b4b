"""Tracks recent changes of items by collection, so that cached lists reflect them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from nearline.errors import NearlineError
from nearline.retry import Backoff
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.cache.cached_list import CachedList
from retrieval.cache.recent_changes import ItemChange, RecentChanges, ValidatedList
from retrieval.changelog.change_log import ChangeLog
from retrieval.changelog.registry import ChangeLogs
from retrieval.changelog.start_position import watermark_of
from retrieval.changelog.tail import LogTail
from retrieval.protocols.snapshot import SnapshotRef

_ENTRIES_PER_READ = 256
_BACKOFF = Backoff(0.1, 2.0, jitter=(0.5, 1.0))
_log = logging.getLogger(__name__)


class ChangeTracker:
    """Knows which items of a collection have changed since the current snapshot.

        locate (from the snapshot's watermark) -> catch up -> follow -> log was set back -> locate

    While the log is unavailable or does not match the snapshot, the known changes stay in use.

    Args:
        log: The log of the collection, not shared with another reader.
        manifest: Manifest of the current snapshot.
        logs: See `LogTail`.
        limit: Maximum number of items tracked individually, see `RecentChanges`.
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
        self._manifest = manifest
        self._limit = limit
        self._changes = RecentChanges(watermark_of(manifest), limit)
        self._tail = LogTail(
            log,
            logs,
            lambda error: self._set_stale(error.message),
            limit=_ENTRIES_PER_READ,
            backoff=_BACKOFF,
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def items(self) -> Mapping[str, ItemChange]:
        """The last change of each changed item, by id."""
        return self._changes.items

    async def start(self) -> None:
        """Starts following; does not wait for the log."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stops following; known changes remain."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def rebase(self, manifest: snapshot_pb2.Manifest) -> None:
        """Continues from another snapshot; forgets the changes that it contains."""
        self._manifest = manifest
        self._changes.forget(watermark_of(manifest))

    def read(self, hot: CachedList | None, item: str = "") -> ValidatedList:
        """Applies the changes made since a list was computed; see `RecentChanges.read`."""
        return self._changes.read(hot, item)

    async def _run(self) -> None:
        delays = _BACKOFF.delays()
        while True:
            before = self._changes
            try:
                await self._follow()
            except NearlineError as error:
                self._set_stale(error.message)
            except Exception as error:
                _log.exception("item changes cannot be followed")
                self._set_stale(f"{type(error).__name__}: {error}")
            if self._changes is not before:
                # It had caught up.
                delays = _BACKOFF.delays()
            await asyncio.sleep(next(delays))

    async def _follow(self) -> None:
        """Collects changes from the snapshot on for as long as the log continues from there."""
        start = await self._tail.locate(self._manifest)
        self._tail.seek(dict(enumerate(start.positions)))
        # If the log was set back, changes known before may never have happened.
        changes = RecentChanges(start, self._limit)
        while True:
            if self._tail.at_initial_head:
                self._changes = changes
                self.stale_reason = ""
            changes.add(await self._tail.read())

    def _set_stale(self, reason: str) -> None:
        if reason != self.stale_reason:
            self.stale_reason = reason
            about = {"collection": self.collection, "reason": reason}
            _log.warning("recent item changes are unknown", extra=about)


class ChangeTrackerRegistry(Mapping[str, ChangeTracker]):
    """Change trackers by collection; empty if no logs are followed.

    Args:
        store: Stores the names of the logs.
        logs: Reads the logs; None disables tracking.
    """

    def __init__(self, store: Store, logs: ChangeLogs | None) -> None:
        self._store = store
        self._logs = logs
        self._trackers: dict[str, ChangeTracker] = {}

    def __getitem__(self, collection: str) -> ChangeTracker:
        return self._trackers[collection]

    def __iter__(self) -> Iterator[str]:
        return iter(self._trackers)

    def __len__(self) -> int:
        return len(self._trackers)

    async def follow(self, snapshot: SnapshotRef) -> None:
        """Starts to track the changes of a collection since a snapshot."""
        if self._logs is None:
            return
        name, manifest = snapshot.collection, snapshot.manifest
        tracker = self._trackers.get(name)
        if tracker is not None:
            tracker.rebase(manifest)
            return
        # Imported late: a router needs no pyarrow until a collection does.
        from retrieval.changelog.retention import followable_logs

        tracker = ChangeTracker(
            self._logs.reader(name), manifest, logs=partial(followable_logs, self._store, name)
        )
        self._trackers[name] = tracker
        await tracker.start()

    async def close(self) -> None:
        """Stops all trackers."""
        for tracker in self._trackers.values():
            await tracker.close()

"""Tracks recent changes of items by collection, so that cached lists reflect them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

from nearline.errors import NearlineError
from nearline.retry import Backoff
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.cache.cached_list import CachedList
from retrieval.changelog.change_log import ChangeLog
from retrieval.changelog.records import ChangeEntry, ChangeKind
from retrieval.changelog.registry import ChangeLogs
from retrieval.changelog.start_position import watermark_of
from retrieval.changelog.tail import LogTail
from retrieval.protocols.snapshot import SnapshotRef
from retrieval.protocols.watermark import Watermark, decode_watermark

_ENTRIES_PER_READ = 256
_BACKOFF = Backoff(0.1, 2.0, jitter=(0.5, 1.0))
_log = logging.getLogger(__name__)


class ItemChange(NamedTuple):
    """The last change of an item: its partition of the log and its position there."""

    partition: int
    position: int
    deleted: bool


class ValidatedList(NamedTuple):
    """A cached list after recent changes.

    cached: The list without deleted items; None if the item does not exist. least: The changes that
    a new list must reflect, because items of this list have changed; None if the list is current.
    """

    cached: CachedList | None
    least: Watermark | None


class RecentChanges:
    """The last change of each item of a collection after a position of its log.

    Changes up to the position `floor` may have been dropped, so a list that does not reflect all
    changes up to the floor counts as changed.

    Args:
        start: The position.
        limit: Largest number of items, >= 2. Beyond it, the half that changed first is dropped.
    """

    def __init__(self, start: Watermark, limit: int) -> None:
        # Changes up to here may have been dropped.
        self._floor = start
        self._limit = limit
        self._items: dict[str, ItemChange] = {}

    @property
    def items(self) -> dict[str, ItemChange]:
        """The last change of each item by id, oldest first."""
        return self._items

    @property
    def floor(self) -> Watermark:
        """Position up to which changes may have been dropped."""
        return self._floor

    def add(self, entries: Sequence[ChangeEntry]) -> None:
        """Adds the next entries of the log."""
        for entry in entries:
            name, is_gone = entry.change.document_id, entry.change.kind is ChangeKind.DELETE
            self._items.pop(name, None)
            self._items[name] = ItemChange(entry.partition, entry.position, is_gone)
        if len(self._items) > self._limit:
            first = list(self._items)[: len(self._items) - self._limit // 2]
            dropped = [self._items.pop(name) for name in first]
            # The changes of a partition are in order of position.
            self._floor = self._floor.advanced({one.partition: one.position for one in dropped})

    def forget(self, upto: Watermark) -> None:
        """Drops the changes that a snapshot has; does nothing if it belongs to another log."""
        if upto.log_id == self._floor.log_id:
            self._floor = self._floor.advanced(dict(enumerate(upto.positions)))
            self._items = {
                name: change
                for name, change in self._items.items()
                if change.position > upto.positions[change.partition]
            }

    def read(self, cached: CachedList | None, item: str = "") -> ValidatedList:
        """Applies the changes since a list was computed.

        Deleted items are left out, even if the age of the list is unknown.

        Args:
            cached: None if the item did not exist, at an unknown time.
            item: Item whose changes affect the list; empty if there is none.
        """
        items = self._items
        own = items.get(item) if items and item else None
        if cached is None:
            written = {} if own is None or own.deleted else {own.partition: own.position}
            return ValidatedList(None, self._floor.advanced(written) if written else None)
        changes = {one: items[one] for one in cached.ids if one in items} if items else {}
        deleted = [one for one, change in changes.items() if change.deleted]
        kept = cached.without(deleted) if deleted else cached
        has = decode_watermark(cached.watermark, "watermark of a cached list")
        if has is None or has.log_id != self._floor.log_id:
            return ValidatedList(kept, None)
        changed = [change for change in changes.values() if not change.deleted]
        newer = {
            one.partition: one.position
            for one in sorted(changed if own is None else [*changed, own])
            if one.position > has.positions[one.partition]
        }
        if newer or not has.covers(self._floor):
            return ValidatedList(kept, self._floor.advanced(newer))
        return ValidatedList(kept, None)


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
    def items(self) -> dict[str, ItemChange]:
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
                # The tracker had caught up, so the next failure starts with a short delay.
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


class ChangeTrackerRegistry(dict[str, ChangeTracker]):
    """Change trackers by collection; empty if no logs are followed.

    Args:
        store: Stores the names of the logs.
        logs: Reads the logs; None disables tracking.
    """

    def __init__(self, store: Store, logs: ChangeLogs | None) -> None:
        super().__init__()
        self._store = store
        self._logs = logs

    async def follow(self, snapshot: SnapshotRef) -> None:
        """Starts to track the changes of a collection since a snapshot."""
        if self._logs is None:
            return
        name, manifest = snapshot.collection, snapshot.manifest
        tracker = self.get(name)
        if tracker is not None:
            tracker.rebase(manifest)
            return
        # Imported late: a router needs no pyarrow until a collection does.
        from retrieval.changelog.retention import followable_logs

        tracker = ChangeTracker(
            self._logs.reader(name), manifest, logs=partial(followable_logs, self._store, name)
        )
        self[name] = tracker
        await tracker.start()

    def newest(self, collection: str, most: int) -> Sequence[str]:
        """Returns the items that changed last and still exist, newest first."""
        tracker = self.get(collection)
        items = {} if tracker is None else tracker.items
        return list(islice((one for one in reversed(items) if not items[one].deleted), most))

    async def forget(self, collection: str) -> None:
        """Stops to track the changes of a collection that was dropped."""
        tracker = self.pop(collection, None)
        if tracker is not None:
            await tracker.close()

    async def close(self) -> None:
        """Stops all trackers."""
        for tracker in self.values():
            await tracker.close()

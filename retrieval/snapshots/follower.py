"""Follows the aliases of a store: loads the snapshots they name and releases all others."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Generic, TypeVar

from nearline.errors import (
    NearlineError,
    NotFound,
    NotReady,
    SettingsError,
    SnapshotCorrupt,
    SnapshotMismatch,
)
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.protocols import metrics
from retrieval.protocols.snapshot import SnapshotRef, no_collection_error, read_snapshot_ref
from retrieval.snapshots.desired_state import DesiredState
from retrieval.snapshots.loaded_snapshots import LoadedSnapshot, LoadedSnapshots
from retrieval.snapshots.poller import Poller

_T = TypeVar("_T")
# Permanent faults of the snapshot itself; at start, an older snapshot is better than none.
_SNAPSHOT_FAULTS = (SnapshotCorrupt, SnapshotMismatch, NotFound)
_log = logging.getLogger(__name__)


class AliasFollower(Generic[_T]):
    """Keeps the served snapshots in step with the aliases.

    A snapshot that cannot be prepared is never served: the previous one stays, the reason appears
    in the log, the metrics and `desired_states`, and loading is retried with growing delays.

    Args:
        store: The store; read in a thread.
        collections: Names of collections; empty for every collection of the store, including later
            ones.
        loaded: The loaded snapshots.
        load: Prepares a snapshot; loading it again returns the same value.
        unload: Releases an unused snapshot (collection, snapshot id).
        poll_s: Seconds between polls of the aliases.
        clock: Returns monotonic seconds.
        on_record: Called with the newest record of each collection at every poll.
        on_drop: Called once a collection was dropped, with its name.
        allow_empty: Whether to start although nothing is published.
    """

    def __init__(
        self,
        store: Store,
        collections: Sequence[str],
        loaded: LoadedSnapshots[_T],
        *,
        load: Callable[[SnapshotRef], Awaitable[_T]],
        unload: Callable[[str, str], Awaitable[None]],
        poll_s: float,
        clock: Callable[[], float] = time.monotonic,
        on_record: Callable[[str, snapshot_pb2.AliasRecord], None] = lambda name, record: None,
        on_drop: Callable[[str], Awaitable[None]] | None = None,
        allow_empty: bool = False,
    ) -> None:
        self._store = store
        self._collections = tuple(collections)
        self._loaded = loaded
        self._load_value = load
        self._unload_value = unload
        self._poll_s = poll_s
        self._poller = Poller(self.poll, poll_s, "following the aliases failed")
        self._clock = clock
        self._on_record = on_record
        self._on_drop = on_drop
        self._allow_empty = allow_empty
        self._polling = asyncio.Lock()
        self._served: dict[str, SnapshotRef] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: set[str] = set()
        self._attempts: dict[str, asyncio.Task[SnapshotRef]] = {}
        self._unreadable = ""
        self.desired_states: dict[str, DesiredState] = {}

    async def start(self) -> None:
        """Serves the snapshots that the aliases name, then keeps following the aliases.

        If a snapshot itself is faulty, the snapshot that was current before it is served.

        Raises: NotFound: Nothing is published. SettingsError: See `load`. Any error of `load` for a
            collection that was named, or if it fails for all collections.
        """
        errors: list[NearlineError] = []
        records = await asyncio.to_thread(self._records, errors)
        if errors and self._collections:
            raise errors[0]
        if not (records or errors) and not self._allow_empty:
            raise no_collection_error(self._store)
        for name, record in records.items():
            self._update(name, record)
            try:
                await self._begin(name, record)
            except NearlineError as error:
                if self._collections or isinstance(error, SettingsError):
                    raise
                errors.append(error)
        if errors and not self._served:
            raise errors[0]
        self._poller.start()

    async def load(self, collection: str, snapshot_id: str) -> LoadedSnapshot[_T]:
        """Loads a snapshot in addition to the served ones; it stays while it is requested.

        Raises: NotFound: The snapshot does not exist. Any error of `load`.
        """
        held = self._loaded.get(collection, snapshot_id)
        if held is not None:
            held.touch()
            return held
        snapshot = await asyncio.to_thread(
            read_snapshot_ref, self._store, collection, snapshot_id, 0
        )
        return self._hold(snapshot, await self._load_value(snapshot))

    async def poll(self) -> None:
        """Reads the aliases once, starts loading due snapshots, and unloads drained ones."""
        async with self._polling:
            await self._poll()

    async def _poll(self) -> None:
        errors: list[NearlineError] = []
        records = await asyncio.to_thread(self._records, errors)
        reason = "; ".join(error.message for error in errors)
        if reason and reason != self._unreadable:
            _log.warning("aliases cannot be read", extra={"reason": reason})
        self._unreadable = reason
        for name, record in records.items():
            if record.dropped:
                await self._remove(name, record)
            else:
                self._update(name, record)
        for name, desired in self.desired_states.items():
            if name not in self._busy and (desired.is_due(self._clock()) or desired.has_failed):
                self._busy.add(name)
                self._spawn(self._reach_desired(name))
        for key in self._loaded.droppable():
            self._loaded.drop(key)
            self._export_count(key.collection)
            self._spawn(self._unload(key.collection, key.snapshot_id))

    async def reach(self, collection: str) -> None:
        """Reads the aliases, and waits until the snapshot of a collection is served or has failed.

        Raises: NotReady: It cannot be loaded; the follower goes on trying.
        """
        await self.poll()
        while collection in self._busy:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        desired = self.desired_states.get(collection)
        if desired is not None and desired.problem:
            raise NotReady(f"{collection!r} exists, but is not served yet: {desired.problem}")

    def forget(self, collection: str, snapshot_id: str) -> None:
        """Releases a snapshot whose preparation is no longer needed, unless it is loaded."""
        self._spawn(self._unload(collection, snapshot_id))

    async def close(self) -> None:
        """Stops following; the caller closes the loaded snapshots."""
        await self._poller.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _records(self, errors: list[NearlineError]) -> Mapping[str, snapshot_pb2.AliasRecord]:
        """Returns the newest records; appends the error of each one that cannot be read.

        Records of dropped collections are among them if the collections are served here.
        """
        records: dict[str, snapshot_pb2.AliasRecord] = {}
        try:
            names = set(self._collections or self._store.collections())
        except NearlineError as error:
            errors.append(error)
            return records
        # What is served here is asked for by name: if the store is away, it stays.
        for name in sorted(names | self.desired_states.keys()):
            try:
                newest = self._store.newest_alias_record(name)
                if newest is None or (newest.dropped and name not in self.desired_states):
                    newest = self._store.alias_in_force(name)  # Raises, with the remedy.
                records[name] = newest
            except NearlineError as error:
                errors.append(error)
        return records

    def _update(self, name: str, record: snapshot_pb2.AliasRecord) -> None:
        desired = self.desired_states.get(name)
        if desired is None:
            desired = self.desired_states[name] = DesiredState(retry_s=self._poll_s)
        before = desired.snapshot_id
        desired.update(record.epoch, record.current)
        if before not in ("", record.current):
            self._give_up(name, before)
        self._loaded.set_named(name, {record.current, record.canary} - {""})
        self._on_record(name, record)

    async def _remove(self, name: str, record: snapshot_pb2.AliasRecord) -> None:
        """Ends a collection that was dropped; requests that have begun end on it."""
        desired = self.desired_states.pop(name)
        snapshot_id = desired.snapshot_id
        desired.update(0, "")
        self._served.pop(name, None)
        self._loaded.remove_collection(name)
        self._give_up(name, snapshot_id)
        self._on_record(name, record)
        _log.info("collection dropped", extra={"collection": name, "epoch": record.epoch})
        if self._on_drop is not None:
            await self._on_drop(name)

    def _give_up(self, name: str, snapshot_id: str) -> None:
        """Stops preparing a snapshot that the alias no longer names."""
        attempt = self._attempts.get(name)
        if attempt is not None:
            attempt.cancel()
        else:
            self._spawn(self._unload(name, snapshot_id))

    async def _begin(self, name: str, record: snapshot_pb2.AliasRecord) -> None:
        """Serves the snapshot of the newest record whose snapshot is not faulty."""
        try:
            await self._advance(name)
        except _SNAPSHOT_FAULTS as first:
            older = await asyncio.to_thread(self._older_records, name, record)
            for other in older:
                with contextlib.suppress(*_SNAPSHOT_FAULTS):
                    snapshot = await self._load(name, other.current, other.epoch)
                    self._make_current(snapshot)
                    return
            raise first

    def _older_records(
        self, name: str, record: snapshot_pb2.AliasRecord
    ) -> list[snapshot_pb2.AliasRecord]:
        """Returns the last record of each other snapshot, newest first."""
        by_snapshot: dict[str, snapshot_pb2.AliasRecord] = {}
        for other in self._store.alias_records(name):
            if other.current not in ("", record.current):
                by_snapshot.setdefault(other.current, other)
        return list(by_snapshot.values())

    async def _reach_desired(self, name: str) -> None:
        """Prepares snapshots until the alias's snapshot is served or a retry has to wait."""
        desired = self.desired_states[name]
        try:
            while desired.is_due(self._clock()):
                with contextlib.suppress(NearlineError):
                    await self._advance(name)
            if desired.has_failed and name in self._served:
                # Shard servers release snapshots that no alias names and no router requests.
                await self._load_value(self._served[name])
        except NearlineError as error:
            _log.warning(
                "served snapshot cannot be kept loaded",
                extra={"collection": name, "reason": error.message},
            )
        finally:
            self._busy.discard(name)

    async def _advance(self, name: str) -> None:
        """Makes one attempt to load the snapshot of the alias; raises if it fails."""
        desired = self.desired_states[name]
        epoch, snapshot_id = desired.epoch, desired.snapshot_id
        attempt = asyncio.ensure_future(self._load(name, snapshot_id, epoch))
        self._attempts[name] = attempt
        try:
            await asyncio.wait((attempt,))
        finally:
            del self._attempts[name]
            attempt.cancel()
        if attempt.cancelled():
            # The load was cancelled because the alias names a different snapshot.
            await self._unload(name, snapshot_id)
            return
        try:
            snapshot = attempt.result()
        except Exception as error:
            reason = error.message if isinstance(error, NearlineError) else repr(error)
            desired.mark_failed(epoch, f"{type(error).__name__}: {reason}", self._clock())
            metrics.snapshot_failures.labels(name, type(error).__name__).inc()
            _log.error(
                "snapshot not served",
                extra={
                    "collection": name,
                    "snapshot_id": snapshot_id,
                    "epoch": epoch,
                    "error": type(error).__name__,
                    "reason": reason,
                },
                exc_info=None if isinstance(error, NearlineError) else error,
            )
            raise
        if desired.mark_prepared(epoch):
            self._make_current(snapshot)

    async def _load(self, name: str, snapshot_id: str, epoch: int) -> SnapshotRef:
        start = self._clock()
        snapshot = await asyncio.to_thread(read_snapshot_ref, self._store, name, snapshot_id, epoch)
        self._hold(snapshot, await self._load_value(snapshot))
        metrics.snapshot_prepare_seconds.labels(name).observe(self._clock() - start)
        return snapshot

    def _hold(self, snapshot: SnapshotRef, value: _T) -> LoadedSnapshot[_T]:
        held = self._loaded.add(snapshot.collection, snapshot.snapshot_id, value)
        self._export_count(snapshot.collection)
        return held

    def _make_current(self, snapshot: SnapshotRef) -> None:
        name = snapshot.collection
        before = self._served.get(name)
        self._loaded.make_current(name, snapshot.snapshot_id)
        self._served[name] = snapshot
        metrics.epoch_in_force.labels(name).set(snapshot.epoch)
        created = snapshot.manifest.create_time
        metrics.snapshot_created.labels(name).set(created.seconds + created.nanos / 1e9)
        _log.info(
            "snapshot is served",
            extra={
                "collection": name,
                "snapshot_id": snapshot.snapshot_id,
                "epoch": snapshot.epoch,
                "before": before.snapshot_id if before else "",
            },
        )

    async def _unload(self, collection: str, snapshot_id: str) -> None:
        """Releases a snapshot, unless it is loaded; then it is released once it is drained."""
        if self._loaded.get(collection, snapshot_id) is not None:
            return
        try:
            await self._unload_value(collection, snapshot_id)
        except NearlineError as error:
            _log.warning(
                "snapshot cannot be unloaded",
                extra={
                    "collection": collection,
                    "snapshot_id": snapshot_id,
                    "reason": error.message,
                },
            )
        else:
            _log.info(
                "snapshot unloaded", extra={"collection": collection, "snapshot_id": snapshot_id}
            )
        if collection not in self.desired_states and not self._loaded.of_collection(collection):
            metrics.forget(collection)

    def _export_count(self, collection: str) -> None:
        metrics.snapshots_held.labels(collection).set(len(self._loaded.of_collection(collection)))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        # The event loop keeps no strong references to tasks.
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("work on a snapshot failed", exc_info=error)

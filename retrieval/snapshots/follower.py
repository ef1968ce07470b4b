"""Follows the aliases of a store: loads what they name, puts it in force, releases the rest."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from nearline.errors import (
    NearlineError,
    NotFound,
    SettingsError,
    SnapshotCorrupt,
    SnapshotMismatch,
)
from nearline.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.protocols import metrics
from retrieval.protocols.snapshot import SnapshotRef, collection_names, read_snapshot_ref
from retrieval.snapshots.desired_state import DesiredState
from retrieval.snapshots.loaded import LoadedSnapshot, LoadedSnapshots

_T = TypeVar("_T")
# The snapshot itself is at fault, for good: at start an older one is better than none.
_AT_FAULT = (SnapshotCorrupt, SnapshotMismatch, NotFound)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LifecycleHooks(Generic[_T]):
    """What the follower calls.

    load: Gets a snapshot ready; loading what is loaded already gives it again.
    unload: Lets go of a snapshot (collection, snapshot id) that nobody uses any more.
    """

    load: Callable[[SnapshotRef], Awaitable[_T]]
    unload: Callable[[str, str], Awaitable[None]]


class AliasFollower(Generic[_T]):
    """Keeps what is in force here at what the aliases name.

    A snapshot that cannot be got ready never comes into force: the one before stays, the reason is
    in the log, the metrics and `pursuits`, and it is tried again, less and less often.

    Args:
        store: The store; listed in a thread.
        collections: Names; none: every collection of the store, later ones included.
        holdings: What is loaded here.
        life: How to load and unload.
        poll_s: Seconds between two looks at the aliases.
        clock: Gives seconds that never go back.
        seen: Told of the record in force of each collection, at every look.
    """

    def __init__(
        self,
        store: Store,
        collections: Sequence[str],
        holdings: LoadedSnapshots[_T],
        life: LifecycleHooks[_T],
        *,
        poll_s: float,
        clock: Callable[[], float] = time.monotonic,
        seen: Callable[[str, snapshot_pb2.AliasRecord], None] = lambda name, record: None,
    ) -> None:
        self._store = store
        self._collections = tuple(collections)
        self._holdings = holdings
        self._life = life
        self._poll_s = poll_s
        self._clock = clock
        self._seen = seen
        self._reached: dict[str, SnapshotRef] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: set[str] = set()
        self._attempts: dict[str, asyncio.Task[SnapshotRef]] = {}
        self._unreadable = ""
        self.pursuits: dict[str, DesiredState] = {}

    async def start(self) -> None:
        """Puts in force what the aliases name, then goes on following them.

        Where the snapshot itself is at fault, the one that was current before it is served.

        Raises: NotFound: nothing is published. SettingsError: as `load`. Whatever `load` raises
            for a collection that was named, or for all of them.
        """
        errors: list[NearlineError] = []
        records = await asyncio.to_thread(self._records, errors)
        if errors and self._collections:
            raise errors[0]
        for name, record in records.items():
            self._see(name, record)
            try:
                await self._begin(name, record)
            except NearlineError as error:
                if self._collections or isinstance(error, SettingsError):
                    raise
                errors.append(error)
        if not self._reached:
            raise errors[0]
        self._spawn(self._follow())

    async def load(self, collection: str, snapshot_id: str) -> LoadedSnapshot[_T]:
        """Loads a snapshot beside the ones in service; it stays while it is asked for.

        Raises: NotFound: there is no such snapshot. Whatever `LifecycleHooks.load` raises.
        """
        held = self._holdings.get(collection, snapshot_id)
        if held is not None:
            held.touch()
            return held
        snapshot = await asyncio.to_thread(
            read_snapshot_ref, self._store, collection, snapshot_id, 0
        )
        return self._hold(snapshot, await self._life.load(snapshot))

    async def poll(self) -> None:
        """Looks at the aliases once, starts what is to be done, and unloads what is drained."""
        errors: list[NearlineError] = []
        records = await asyncio.to_thread(self._records, errors)
        reason = "; ".join(error.message for error in errors)
        if reason and reason != self._unreadable:
            _log.warning("aliases cannot be read", extra={"reason": reason})
        self._unreadable = reason
        for name, record in records.items():
            self._see(name, record)
        for name, pursuit in self.pursuits.items():
            if name not in self._busy and (pursuit.wants(self._clock()) or pursuit.stuck):
                self._busy.add(name)
                self._spawn(self._pursue(name))
        for key in self._holdings.due():
            self._holdings.drop(key)
            self._count(key.collection)
            self._spawn(self._unload(key.collection, key.snapshot_id))

    def forget(self, collection: str, snapshot_id: str) -> None:
        """Releases a snapshot that was to be got ready beside, unless it is held."""
        self._spawn(self._unload(collection, snapshot_id))

    async def close(self) -> None:
        """Stops following; what is loaded stays, and is its owner's to close."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self.poll()
            except Exception:
                # Whatever it was, the next look may go well; requests are answered meanwhile.
                _log.exception("following the aliases failed")

    def _records(self, errors: list[NearlineError]) -> Mapping[str, snapshot_pb2.AliasRecord]:
        """Reads the records in force; what cannot be read is left out, with its error."""
        records = {}
        try:
            for name in collection_names(self._store, self._collections):
                try:
                    records[name] = self._store.alias_in_force(name)
                except NearlineError as error:
                    errors.append(error)
        except NearlineError as error:
            errors.append(error)
        return records

    def _see(self, name: str, record: snapshot_pb2.AliasRecord) -> None:
        pursuit = self.pursuits.get(name)
        if pursuit is None:
            pursuit = self.pursuits[name] = DesiredState(retry_s=self._poll_s)
        before = pursuit.snapshot_id
        pursuit.see(record.epoch, record.current)
        if before not in ("", record.current):
            self._give_up(name, before)
        self._holdings.name(name, {record.current, record.canary} - {""})
        self._seen(name, record)

    def _give_up(self, name: str, snapshot_id: str) -> None:
        """Stops getting a snapshot ready that the alias names no more."""
        attempt = self._attempts.get(name)
        if attempt is not None:
            attempt.cancel()
        else:
            self._spawn(self._unload(name, snapshot_id))

    async def _begin(self, name: str, record: snapshot_pb2.AliasRecord) -> None:
        """Puts the newest record in force whose snapshot is not at fault."""
        try:
            await self._advance(name)
        except _AT_FAULT as first:
            older = await asyncio.to_thread(self._older, name, record)
            for other in older:
                with contextlib.suppress(*_AT_FAULT):
                    snapshot = await self._load(name, other.current, other.epoch)
                    self._flip(snapshot)
                    return
            raise first

    def _older(self, name: str, record: snapshot_pb2.AliasRecord) -> list[snapshot_pb2.AliasRecord]:
        """Returns the record that last named each other snapshot, newest first."""
        by_snapshot: dict[str, snapshot_pb2.AliasRecord] = {}
        for other in self._store.alias_records(name):
            if other.current != record.current:
                by_snapshot.setdefault(other.current, other)
        return list(by_snapshot.values())

    async def _pursue(self, name: str) -> None:
        """Prepares and flips until this collection is where its alias is, or has to wait."""
        pursuit = self.pursuits[name]
        try:
            while pursuit.wants(self._clock()):
                with contextlib.suppress(NearlineError):
                    await self._advance(name)
            if pursuit.stuck and name in self._reached:
                # Shard servers let go of what no alias names and nobody asks for: ask.
                await self._life.load(self._reached[name])
        except NearlineError as error:
            _log.warning(
                "snapshot in force cannot be kept",
                extra={"collection": name, "reason": error.message},
            )
        finally:
            self._busy.discard(name)

    async def _advance(self, name: str) -> None:
        """Makes one attempt at what the alias names; raises where it fails."""
        pursuit = self.pursuits[name]
        epoch, snapshot_id = pursuit.epoch, pursuit.snapshot_id
        attempt = asyncio.ensure_future(self._load(name, snapshot_id, epoch))
        self._attempts[name] = attempt
        try:
            await asyncio.wait((attempt,))
        finally:
            del self._attempts[name]
            attempt.cancel()
        if attempt.cancelled():
            # Given up: the alias has moved on.
            await self._unload(name, snapshot_id)
            return
        try:
            snapshot = attempt.result()
        except Exception as error:
            reason = error.message if isinstance(error, NearlineError) else repr(error)
            pursuit.failed(epoch, f"{type(error).__name__}: {reason}", self._clock())
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
        if pursuit.prepared(epoch):
            self._flip(snapshot)

    async def _load(self, name: str, snapshot_id: str, epoch: int) -> SnapshotRef:
        start = self._clock()
        snapshot = await asyncio.to_thread(read_snapshot_ref, self._store, name, snapshot_id, epoch)
        self._hold(snapshot, await self._life.load(snapshot))
        metrics.snapshot_prepare_seconds.labels(name).observe(self._clock() - start)
        return snapshot

    def _hold(self, snapshot: SnapshotRef, value: _T) -> LoadedSnapshot[_T]:
        held = self._holdings.hold(snapshot.collection, snapshot.snapshot_id, value)
        self._count(snapshot.collection)
        return held

    def _flip(self, snapshot: SnapshotRef) -> None:
        name = snapshot.collection
        before = self._reached.get(name)
        self._holdings.flip(name, snapshot.snapshot_id)
        self._reached[name] = snapshot
        metrics.epoch_in_force.labels(name).set(snapshot.epoch)
        _log.info(
            "snapshot in force",
            extra={
                "collection": name,
                "snapshot_id": snapshot.snapshot_id,
                "epoch": snapshot.epoch,
                "before": before.snapshot_id if before else "",
            },
        )

    async def _unload(self, collection: str, snapshot_id: str) -> None:
        """Releases a snapshot, unless it is held: then it is served, and goes when it is due."""
        if self._holdings.get(collection, snapshot_id) is not None:
            return
        try:
            await self._life.unload(collection, snapshot_id)
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

    def _count(self, collection: str) -> None:
        metrics.snapshots_held.labels(collection).set(len(self._holdings.of(collection)))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        # The loop keeps no reference to its tasks.
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("work on a snapshot failed", exc_info=error)

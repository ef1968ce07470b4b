"""The archive of a change log: consecutive segments in the store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np

from nearline.errors import (
    AlreadyExists,
    NotFound,
    NotReady,
    SnapshotCorrupt,
    SnapshotMismatch,
)
from nearline.store.snapshot import PARTITIONS, Store
from retrieval.changelog.archive_segments import (
    ArchivedChange,
    LogSegment,
    archive_row,
    encode_segment,
)
from retrieval.changelog.change_log import ChangeLog, LogDiverged, PartitionEnd
from retrieval.changelog.records import UNKNOWN_NONCES, ChangeEntry, Nonces
from retrieval.protocols.watermark import Watermark

SEGMENT_CHANGES = 50_000
SEGMENT_BYTES = 64 << 20
# Entries of each partition per read: up to 64 times as many, with vectors, are in memory.
_ENTRIES_PER_READ = 64
# Segments whose summaries are remembered, of 5 kB each. A collection makes one a minute at most and
# has those of a few days; beyond this many in all, each round would read every one again.
_REMEMBERED = 32_768
# A failover during an archiving is rare, and a second one in a row is a broken Redis.
_MOST_RESTORED = 3
_RETRY_S = 10.0
_log = logging.getLogger(__name__)

_T = TypeVar("_T")


class PendingChanges(NamedTuple):
    """The changes after a position. oldest_us: Microseconds since 1970; 0 if there are none."""

    changes: int
    oldest_us: int


class _Summary(NamedTuple):
    """Summary of a segment: its bounds, nonces at its end, when it was made, and its changes."""

    before: Watermark
    after: Watermark
    nonces: Nonces
    made_us: int
    changes: PendingChanges


class Archive:
    """The archived part of a change log; blocks, so servers must call it in threads.

    Args:
        store: The store.
        collection: Name of the collection.
        log_id: Id of the log.
    """

    def __init__(self, store: Store, collection: str, log_id: str) -> None:
        self._store = store
        self._collection = collection
        self.log_id = log_id

    def numbers(self) -> list[int]:
        """Returns the segment numbers in order."""
        return self._store.log_segments(self._collection, self.log_id)

    def bounds(self, number: int) -> tuple[Watermark, Watermark]:
        """Returns the positions up to which the log is archived without and with a segment."""
        found = self._summary(number)
        return found.before, found.after

    def end(self) -> Watermark:
        """Returns how far the log is archived; all zeros if it is not."""
        numbers = self.numbers()
        return self.bounds(numbers[-1])[1] if numbers else Watermark(self.log_id)

    def ends(self) -> Mapping[int, PartitionEnd]:
        """Returns where the archive ends, by partition; without those that it has nothing of."""
        numbers = self.numbers()
        if not numbers:
            return {}
        last = self._summary(numbers[-1])
        found = zip(last.after.positions, last.nonces, strict=True)
        return {one: PartitionEnd(*end) for one, end in enumerate(found) if end[0]}

    def made_us(self) -> int:
        """Returns when the last segment was created, in us since 1970; 0 if there is none."""
        numbers = self.numbers()
        return self._summary(numbers[-1]).made_us if numbers else 0

    def add(self, rows: Sequence[ArchivedChange], before: Watermark, after: Watermark) -> None:
        """Adds a segment.

        Raises: AlreadyExists: another process added one first, or `before` is not the end of the
            archive; read the archive again. NotFound: the collection was dropped.
        """
        numbers = self.numbers()
        if numbers and self.bounds(numbers[-1])[1] != before:
            raise AlreadyExists(
                f"the archive of {self._collection!r} has grown meanwhile; read it again"
            )
        number = numbers[-1] + 1 if numbers else 1
        if self._is_dropped():
            raise NotFound(
                f"collection {self._collection!r} was dropped, with change log {self.log_id}",
                field="collection",
            )
        nonces = dict(enumerate(self._summary(numbers[-1]).nonces if numbers else UNKNOWN_NONCES))
        nonces.update((row.partition, row.nonce) for row in rows)
        data = encode_segment(rows, before, after, tuple(nonces.values()))
        self._store.create_log_segment(self._collection, self.log_id, number, data)

    def _is_dropped(self) -> bool:
        newest = self._store.newest_alias_record(self._collection)
        if newest is not None and newest.dropped:
            return True
        logs = [record.log_id for record in self._store.log_records(self._collection)]
        # A collection of the same name may have been created since.
        return bool(logs) and self.log_id not in logs

    def entries(self, start: Watermark, end: Watermark | None = None) -> Iterator[ChangeEntry]:
        """Yields changes after one position up to another, in order within each partition.

        Args:
            start: Position after which to begin.
            end: Last position; None means the end of the archive.
        Raises: SnapshotMismatch: segments after the start were removed. SnapshotCorrupt: a segment
            is unreadable or missing.
        """
        last = end.positions if end else None
        for segment in self._visit(self._read, start, end):
            for entry in segment.entries(start):
                if last is None or entry.position <= last[entry.partition]:
                    yield entry

    def pending(self, start: Watermark) -> PendingChanges:
        """Counts the archived changes after a position."""

        def count(number: int) -> PendingChanges:
            summary = self._summary(number)
            # Of a segment after the start, all changes are; mostly, this is all but the first.
            whole = summary.before.covers(start)
            return summary.changes if whole else _count_after(self._read(number), start)

        found = list(self._visit(count, start))
        oldest = [one.oldest_us for one in found if one.changes]
        return PendingChanges(sum(one.changes for one in found), min(oldest, default=0))

    def drop(self, upto: Watermark) -> int:
        """Removes segments without changes after a position, oldest first.

        If all segments would be removed, an empty segment replaces them and records the end of the
        archive.

        Returns: The number of segments removed.
        """
        removed = 0
        for number in self.numbers():
            try:
                before, after = self.bounds(number)
            except SnapshotCorrupt:
                if number in self.numbers():
                    raise
                continue  # Another process dropped it.
            if not upto.covers(after):
                break
            now = self.numbers()
            if number not in now:
                continue  # Another process dropped it.
            if number == now[-1]:
                if before == after:
                    break
                # If the archive has grown since then, its new segment records the end.
                with contextlib.suppress(AlreadyExists):
                    self.add([], after, after)
            self._store.remove_log_segment(self._collection, self.log_id, number)
            removed += 1
        return removed

    def _visit(
        self, visit: Callable[[int], _T], start: Watermark, end: Watermark | None = None
    ) -> Iterator[_T]:
        """Yields the result of a visit to each segment with changes between two positions.

        Another process may drop segments at the same time.

        Raises: As `entries`, and as `visit`.
        """
        at = start
        left = deque(self.numbers())
        while left:
            number = left.popleft()
            try:
                before, after = self.bounds(number)
                if start.covers(after):
                    continue
                if end is not None and before.covers(end):
                    break
                if not at.covers(before):
                    self._raise_missing(number, at, before)
                found = visit(number)
            except SnapshotCorrupt:
                now = self.numbers()
                if number in now:
                    raise
                left = deque(one for one in now if one > number)
                continue
            yield found
            at = at.advanced(dict(enumerate(after.positions)))

    def _raise_missing(self, number: int, at: Watermark, before: Watermark) -> None:
        partition = next(p for p in range(PARTITIONS) if at.positions[p] < before.positions[p])
        raise SnapshotMismatch(
            f"the archive of change log {self.log_id} lacks changes {at.positions[partition] + 1} "
            f"to {before.positions[partition]} of partition {partition}, before its segment "
            f"{number}: they were dropped, or a segment is lost; build from a snapshot that "
            "contains them"
        )

    def _read(self, number: int) -> LogSegment:
        return _read_segment(self._store, self._collection, self.log_id, number)

    def _summary(self, number: int) -> _Summary:
        return _summarize(self._store, self._collection, self.log_id, number)


def _read_segment(store: Store, collection: str, log_id: str, number: int) -> LogSegment:
    name = f"segment {number} of change log {log_id}"
    try:
        data = store.read_log_segment(collection, log_id, number)
    except NotFound as error:
        raise SnapshotCorrupt(f"{name} is missing: {error.message}") from error
    return LogSegment(data, name)


@lru_cache(_REMEMBERED)
def _summarize(store: Store, collection: str, log_id: str, number: int) -> _Summary:
    """Returns the summary of a segment. It never changes, nor is its number used again."""
    segment = _read_segment(store, collection, log_id, number)
    changes = _count_after(segment, Watermark(log_id))
    return _Summary(segment.before, segment.after, segment.nonces, segment.made_us, changes)


def _count_after(segment: LogSegment, start: Watermark) -> PendingChanges:
    partitions, positions, times = segment.positions()
    after = positions > np.array(start.positions)[partitions]
    oldest_us = int(times[after].min()) if after.any() else 0
    return PendingChanges(int(after.sum()), oldest_us)


async def archive_changes(store: Store, log: ChangeLog) -> Archive:
    """Copies changes of a log that are not archived yet into new segments.

    Only changes that the replicas have confirmed are archived. If the log lacks archived changes
    all the same, because another replica took over or an old copy of its data was restored, they
    are put back into it. Several processes may archive at once: a slower process continues after
    the segments of a faster one.

    Returns: The archive; it contains at least everything that was in the log at the time of the
        call.
    Raises: NotReady: the log is unavailable, or replicas do not confirm its changes.
        SnapshotMismatch: the store names another log, the log has lost archived changes that
        cannot be told from others, or changes were trimmed before they were archived. StoreError.
    """
    for _ in range(_MOST_RESTORED):
        head = (await log.state()).head
        archive = Archive(store, log.collection, head.log_id)
        try:
            await _archive_upto(log, archive, head)
            return archive
        except LogDiverged:
            # From here on, only what the archive knows counts.
            log.forget_read()
            # If it is restored by another process meanwhile, the next attempt sees that.
            with contextlib.suppress(LogDiverged):
                await _restore(log, archive)
    raise NotReady("Redis fails over again and again; try again later", retry_after_s=_RETRY_S)


async def _archive_upto(log: ChangeLog, archive: Archive, head: Watermark) -> None:
    """Archives up to a position. Raises: LogDiverged: the log lacks archived changes."""
    while True:
        numbers = await asyncio.to_thread(archive.numbers)
        ends = await asyncio.to_thread(archive.ends)
        end = _position(archive.log_id, ends)
        state = await log.state()
        for partition, (position, nonce) in ends.items():
            at, found = state.head.positions[partition], state.nonces[partition]
            if at < position or (at == position and nonce and found not in (b"", nonce)):
                raise LogDiverged(
                    f"change log {archive.log_id} lacks archived changes of partition {partition}"
                )
        # An empty first segment records that no earlier entries are missing.
        if numbers and end.covers(head):
            return
        rows, after = await _next_rows(log, end, ends, head)
        with contextlib.suppress(AlreadyExists):
            await asyncio.to_thread(archive.add, rows, end, after)


async def _next_rows(
    log: ChangeLog, end: Watermark, ends: Mapping[int, PartitionEnd], head: Watermark
) -> tuple[list[ArchivedChange], Watermark]:
    """Reads the confirmed changes after a position, up to the size of a segment.

    Raises: LogDiverged: they do not continue the archive, or were replaced meanwhile.
    """
    behind = [one for one, at in enumerate(end.positions) if at < head.positions[one]]
    confirmed = await log.confirm(behind) if behind else {}
    head = Watermark(head.log_id).advanced({one: at.position for one, at in confirmed.items()})
    nonces = {one: at.nonce for one, at in ends.items()}
    rows: list[ArchivedChange] = []
    size = 0
    at = end
    while len(rows) < SEGMENT_CHANGES and size < SEGMENT_BYTES:
        wanted = {
            one: at.positions[one] for one in behind if at.positions[one] < head.positions[one]
        }
        if not wanted:
            break
        entries = await log.read(wanted, limit=_ENTRIES_PER_READ)
        if not entries:
            raise SnapshotMismatch(
                f"change log {head.log_id} returned no changes after the archived ones, although "
                "its head is further: it was set back; try again"
            )
        for entry in entries:
            if entry.position > head.positions[entry.partition]:
                continue
            is_last = entry.position == head.positions[entry.partition]
            if not _agree(entry.before, nonces.get(entry.partition, b"")) or (
                is_last and not _agree(entry.nonce, confirmed[entry.partition].nonce)
            ):
                raise LogDiverged(
                    f"change {entry.position} of partition {entry.partition} of change log "
                    f"{head.log_id} does not continue what is archived, or was replaced meanwhile"
                )
            nonces[entry.partition] = entry.nonce
            row = archive_row(entry)
            rows.append(row)
            size += len(row.change)
            at = at.advanced({entry.partition: entry.position})
    # Entries are chained, so those that were read are confirmed if the log still has the last one.
    left = {one: head.positions[one] for one in behind if at.positions[one] < head.positions[one]}
    found = await log.nonces(left) if left else {}
    gone = [one for one in left if confirmed[one].nonce not in (b"", found.get(one))]
    if gone or (behind and not rows):
        raise LogDiverged(f"change log {head.log_id} was set back while it was archived")
    return rows, at


def _agree(one: bytes, other: bytes) -> bool:
    return one == other or not (one and other)


async def _restore(log: ChangeLog, archive: Archive) -> None:
    """Puts archived changes that a log has lost back into it, before what has followed since.

    They were confirmed by replicas, and snapshots may contain them: without them, the log would
    give their numbers to other changes, and these snapshots would seem to contain those.

    Raises: SnapshotMismatch: an older version archived changes that may be lost, without nonces.
    """
    ends = await asyncio.to_thread(archive.ends)
    if not ends:
        return
    found = await log.nonces({one: end.position for one, end in ends.items()})
    state = await log.state()
    first = await asyncio.to_thread(lambda: archive.bounds(archive.numbers()[0])[0].positions)
    start = list(_position(archive.log_id, ends).positions)
    for partition, (position, nonce) in ends.items():
        at = state.head.positions[partition]
        if nonce and found.get(partition) != nonce:
            start[partition] = max(state.trimmed.positions[partition], first[partition])
        elif at < position:
            raise _lost(archive.log_id, partition, at, position)
    kept = Watermark(archive.log_id, tuple(start))
    by_partition = defaultdict[int, list[ChangeEntry]](list)
    for entry in await asyncio.to_thread(lambda: list(archive.entries(kept))):
        by_partition[entry.partition].append(entry)
    restorations: list[tuple[PartitionEnd, list[ChangeEntry]]] = []
    for partition, entries in by_partition.items():
        last = await _last_common(log, entries) or PartitionEnd(start[partition], b"")
        lost = [one for one in entries if one.position > last.position]
        if not all(one.nonce for one in lost):
            at = state.head.positions[partition]
            raise _lost(archive.log_id, partition, at, ends[partition].position)
        if lost:
            restorations.append((last, lost))
    for last, lost in restorations:
        partition = lost[0].partition
        await log.restore(partition, last, lost)
        about = {"collection": log.collection, "partition": partition, "changes": len(lost)}
        _log.warning("archived changes that the change log had lost are in it again", extra=about)


async def _last_common(log: ChangeLog, entries: Sequence[ChangeEntry]) -> PartitionEnd | None:
    """Returns the last archived entry of a partition that the log has; None if it has none.

    Entries are chained by their nonces: up to some position, all are the same.
    """
    known = [one for one in entries if one.nonce]
    low, high = 0, len(known)
    while low < high:
        middle = (low + high) // 2
        entry = known[middle]
        found = await log.nonces({entry.partition: entry.position})
        low, high = (
            (middle + 1, high) if found.get(entry.partition) == entry.nonce else (low, middle)
        )
    return PartitionEnd(known[low - 1].position, known[low - 1].nonce) if low else None


def _position(log_id: str, ends: Mapping[int, PartitionEnd]) -> Watermark:
    return Watermark(log_id).advanced({one: end.position for one, end in ends.items()})


def _lost(log_id: str, partition: int, at: int, archived_at: int) -> SnapshotMismatch:
    return SnapshotMismatch(
        f"change log {log_id} ends at {at} in partition {partition}, but {archived_at} changes of "
        "it are archived: it has lost changes; restore the Redis that has them, or start a new "
        "log with nearline changes reset"
    )

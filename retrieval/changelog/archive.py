"""The archive of a change log: consecutive segments in the store."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np

from nearline.errors import AlreadyExists, NotFound, SnapshotCorrupt, SnapshotMismatch
from nearline.store.snapshot import PARTITIONS, Store
from retrieval.changelog.archive_segments import (
    ArchivedChange,
    LogSegment,
    archive_row,
    encode_segment,
)
from retrieval.changelog.change_log import ChangeLog
from retrieval.changelog.records import ChangeEntry
from retrieval.protocols.watermark import Watermark

SEGMENT_CHANGES = 50_000
SEGMENT_BYTES = 64 << 20
# Entries of each partition per read: up to 64 times as many, with vectors, are in memory.
_ENTRIES_PER_READ = 64
# Segments whose summaries are remembered, of 5 kB each. A collection makes one a minute at most and
# has those of a few days; beyond this many in all, each round would read every one again.
_REMEMBERED = 32_768


_T = TypeVar("_T")


class PendingChanges(NamedTuple):
    """The changes after a position. oldest_us: Microseconds since 1970; 0 if there are none."""

    changes: int
    oldest_us: int


class _Summary(NamedTuple):
    """Summary of a segment: its bounds, when it was made, and its changes."""

    before: Watermark
    after: Watermark
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
        data = encode_segment(rows, before, after)
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
    return _Summary(segment.before, segment.after, segment.made_us, changes)


def _count_after(segment: LogSegment, start: Watermark) -> PendingChanges:
    partitions, positions, times = segment.positions()
    after = positions > np.array(start.positions)[partitions]
    oldest_us = int(times[after].min()) if after.any() else 0
    return PendingChanges(int(after.sum()), oldest_us)


async def archive_changes(store: Store, log: ChangeLog) -> Archive:
    """Copies changes of a log that are not archived yet into new segments.

    Several processes may do so at once: a slower process continues after the segments of a faster
    one.

    Returns: The archive; it contains at least everything that was in the log at the time of the
        call.
    Raises: NotReady: the log is unavailable. SnapshotMismatch: the store names another log, the log
        has lost archived changes, or changes were trimmed before they were archived. StoreError.
    """
    head = (await log.state()).head
    archive = Archive(store, log.collection, head.log_id)
    while True:
        numbers = await asyncio.to_thread(archive.numbers)
        end = await asyncio.to_thread(archive.end)
        if not head.covers(end):
            # Another process may have archived what was appended since the head was read.
            head = (await log.state()).head
            _check_not_behind(head, end)
        # An empty first segment records that no earlier entries are missing.
        if numbers and end.covers(head):
            return archive
        rows, after = await _next_rows(log, end, head)
        try:
            await asyncio.to_thread(archive.add, rows, end, after)
        except AlreadyExists:
            continue


async def _next_rows(
    log: ChangeLog, end: Watermark, head: Watermark
) -> tuple[list[ArchivedChange], Watermark]:
    """Reads the changes after a position, up to the size of a segment."""
    rows: list[ArchivedChange] = []
    size = 0
    at = end
    while not at.covers(head) and len(rows) < SEGMENT_CHANGES and size < SEGMENT_BYTES:
        behind = {
            partition: position
            for partition, position in enumerate(at.positions)
            if position < head.positions[partition]
        }
        entries = await log.read(behind, limit=_ENTRIES_PER_READ)
        if not entries:
            raise SnapshotMismatch(
                f"change log {head.log_id} returned no changes after the archived ones, although "
                "its head is further: it was set back; try again"
            )
        for entry in entries:
            row = archive_row(entry)
            rows.append(row)
            size += len(row.change)
            at = at.advanced({entry.partition: entry.position})
    return rows, at


def _check_not_behind(head: Watermark, end: Watermark) -> None:
    for partition, (at, archived_at) in enumerate(zip(head.positions, end.positions, strict=True)):
        if at < archived_at:
            raise SnapshotMismatch(
                f"change log {head.log_id} ends at {at} in partition {partition}, but "
                f"{archived_at} changes of it are archived: it has lost changes; restore the "
                "Redis that has them, or start a new log with nearline changes reset"
            )

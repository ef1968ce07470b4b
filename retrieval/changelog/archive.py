"""The archive of a change log: consecutive segments in the store."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

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


class PendingChanges(NamedTuple):
    """The changes after a position. oldest_us: Microseconds since 1970; 0 if there are none."""

    changes: int
    oldest_us: int


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
        # Segments never change: their bounds are read once.
        self._bounds: dict[int, tuple[Watermark, Watermark]] = {}
        self._made_us: dict[int, int] = {}

    def numbers(self) -> list[int]:
        """Returns the segment numbers in order."""
        return self._store.log_segments(self._collection, self.log_id)

    def bounds(self, number: int) -> tuple[Watermark, Watermark]:
        """Returns the positions up to which the log is archived without and with a segment."""
        if number not in self._bounds:
            self._read(number)
        return self._bounds[number]

    def end(self) -> Watermark:
        """Returns how far the log is archived; all zeros if it is not."""
        numbers = self.numbers()
        return self.bounds(numbers[-1])[1] if numbers else Watermark(self.log_id)

    def made_us(self) -> int:
        """Returns when the last segment was created, in us since 1970; 0 if there is none."""
        numbers = self.numbers()
        if not numbers:
            return 0
        if numbers[-1] not in self._made_us:
            self._read(numbers[-1])
        return self._made_us[numbers[-1]]

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
        self._bounds[number] = before, after

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
        for _, segment in self._segments(start, end):
            for entry in segment.entries(start):
                if last is None or entry.position <= last[entry.partition]:
                    yield entry

    def pending(self, start: Watermark) -> PendingChanges:
        """Counts the archived changes after a position."""
        count, oldest = 0, 0
        for _, segment in self._segments(start):
            partitions, positions, times = segment.positions()
            after = positions > np.array(start.positions)[partitions]
            count += int(after.sum())
            if after.any():
                oldest = min(oldest or 1 << 62, int(times[after].min()))
        return PendingChanges(count, oldest)

    def drop(self, upto: Watermark) -> int:
        """Removes segments without changes after a position, oldest first.

        If all segments would be removed, an empty segment replaces them and records the end of the
        archive.

        Returns: The number of segments removed.
        """
        removed = 0
        for number, before, after in self._listed():
            if not upto.covers(after):
                break
            if number == self.numbers()[-1]:
                if before == after:
                    break
                # If the archive has grown since then, its new segment records the end.
                with contextlib.suppress(AlreadyExists):
                    self.add([], after, after)
            self._store.remove_log_segment(self._collection, self.log_id, number)
            removed += 1
        return removed

    def _listed(self) -> Iterator[tuple[int, Watermark, Watermark]]:
        """Yields the number and the bounds of each segment; another process may drop some."""
        left = deque(self.numbers())
        while left:
            number = left.popleft()
            try:
                before, after = self.bounds(number)
            except SnapshotCorrupt:
                now = self.numbers()
                if number in now:
                    raise
                left = deque(one for one in now if one > number)
                continue
            yield number, before, after

    def _segments(
        self, start: Watermark, end: Watermark | None = None
    ) -> Iterator[tuple[int, LogSegment]]:
        """Yields the segments with changes between two positions."""
        at = start
        for number, before, after in self._listed():
            if start.covers(after):
                continue
            if end is not None and before.covers(end):
                break
            if not at.covers(before):
                self._raise_missing(number, at, before)
            yield number, self._read(number)
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
        name = f"segment {number} of change log {self.log_id}"
        try:
            data = self._store.read_log_segment(self._collection, self.log_id, number)
        except NotFound as error:
            raise SnapshotCorrupt(f"{name} is missing: {error.message}") from error
        segment = LogSegment(data, name)
        self._bounds[number] = segment.before, segment.after
        self._made_us[number] = segment.made_us
        return segment


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

"""The archive of a change log: segments in the store, each beginning where the last one ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from nearline.errors import AlreadyExists, NotFound, SnapshotCorrupt, SnapshotMismatch
from nearline.snapshot import PARTITIONS, Store
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
# Of each partition at once: 64 times as many at most, with their vectors, are in memory.
_READ_AT_ONCE = 64


class PendingChanges(NamedTuple):
    """Changes after a position: how many, and when the oldest was made, us since 1970; 0: none."""

    changes: int
    oldest_us: int


class Archive:
    """What a store has of one change log; blocks, so that a server calls it in threads.

    Args:
        store: The store.
        collection: Name of the collection.
        log_id: The log.
    """

    def __init__(self, store: Store, collection: str, log_id: str) -> None:
        self._store = store
        self._collection = collection
        self.log_id = log_id
        # Segments never change: where they begin and end is read once.
        self._bounds: dict[int, tuple[Watermark, Watermark]] = {}
        self._made_us: dict[int, int] = {}

    def numbers(self) -> list[int]:
        """Lists the numbers of its segments, in order."""
        return self._store.log_segments(self._collection, self.log_id)

    def bounds(self, number: int) -> tuple[Watermark, Watermark]:
        """Returns what was archived before a segment, and what is with it."""
        if number not in self._bounds:
            self._read(number)
        return self._bounds[number]

    def end(self) -> Watermark:
        """Returns how far the log is archived; all zeros where nothing is."""
        numbers = self.numbers()
        return self.bounds(numbers[-1])[1] if numbers else Watermark(self.log_id)

    def made_us(self) -> int:
        """Returns when its last segment was made, microseconds since 1970; 0: there is none."""
        numbers = self.numbers()
        if not numbers:
            return 0
        if numbers[-1] not in self._made_us:
            self._read(numbers[-1])
        return self._made_us[numbers[-1]]

    def add(self, rows: Sequence[ArchivedChange], before: Watermark, after: Watermark) -> None:
        """Adds a segment.

        Raises: AlreadyExists: somebody else added one first, or `before` is not where the archive
            ends; read it again.
        """
        numbers = self.numbers()
        if numbers and self.bounds(numbers[-1])[1] != before:
            raise AlreadyExists(f"the archive of {self._collection!r} has grown; read it again")
        number = numbers[-1] + 1 if numbers else 1
        data = encode_segment(rows, before, after)
        self._store.create_log_segment(self._collection, self.log_id, number, data)
        self._bounds[number] = before, after

    def entries(self, start: Watermark, end: Watermark | None = None) -> Iterator[ChangeEntry]:
        """Yields changes after one position up to another, those of a partition in order.

        Args:
            start: Position after which to begin.
            end: Last position; None: all that is archived.
        Raises: SnapshotMismatch: segments after the start were removed. SnapshotCorrupt: one
            cannot be read, or is missing.
        """
        last = end.positions if end else None
        for _, segment in self._segments(start, end):
            for entry in segment.entries(start):
                if last is None or entry.position <= last[entry.partition]:
                    yield entry

    def pending(self, start: Watermark) -> PendingChanges:
        """Counts what is archived after a position."""
        count, oldest = 0, 0
        for _, segment in self._segments(start):
            partitions, positions, times = segment.places()
            after = positions > np.array(start.positions)[partitions]
            count += int(after.sum())
            if after.any():
                oldest = min(oldest or 1 << 62, int(times[after].min()))
        return PendingChanges(count, oldest)

    def drop(self, upto: Watermark) -> int:
        """Removes segments that hold nothing after a position, oldest first.

        Where that is all of them, an empty one stays in their place and says where the archive
        ends.

        Returns: How many were removed.
        """
        removed = 0
        for number in self.numbers():
            before, after = self.bounds(number)
            if not upto.covers(after):
                break
            if number == self.numbers()[-1]:
                if before == after:
                    break
                # Where it has grown meanwhile, its end is known without this.
                with contextlib.suppress(AlreadyExists):
                    self.add([], after, after)
            self._store.remove_log_segment(self._collection, self.log_id, number)
            removed += 1
        return removed

    def _segments(
        self, start: Watermark, end: Watermark | None = None
    ) -> Iterator[tuple[int, LogSegment]]:
        """Yields the segments that hold anything between two positions."""
        at = start
        for number in self.numbers():
            before, after = self.bounds(number)
            if start.covers(after):
                continue
            if end is not None and before.covers(end):
                break
            if not at.covers(before):
                self._missing(number, at, before)
            yield number, self._read(number)
            at = at.advanced(dict(enumerate(after.positions)))

    def _missing(self, number: int, at: Watermark, before: Watermark) -> None:
        partition = next(p for p in range(PARTITIONS) if at.positions[p] < before.positions[p])
        raise SnapshotMismatch(
            f"the archive of change log {self.log_id} lacks changes {at.positions[partition] + 1} "
            f"to {before.positions[partition]} of partition {partition}, before its segment "
            f"{number}: they were dropped, or a segment is lost; build from a snapshot that has "
            "them"
        )

    def _read(self, number: int) -> LogSegment:
        name = f"segment {number} of change log {self.log_id}"
        try:
            data = self._store.read_log_segment(self._collection, self.log_id, number)
        except NotFound as error:
            raise SnapshotCorrupt(f"{name} is gone: {error.message}") from error
        segment = LogSegment(data, name)
        self._bounds[number] = segment.before, segment.after
        self._made_us[number] = segment.made_us
        return segment


async def archive_changes(store: Store, log: ChangeLog) -> Archive:
    """Copies what a log has, and the archive has not, into new segments.

    Several may do so at once: the one that is slower goes on from what the faster one archived.

    Returns: The archive; it has at least all that was in the log at the call.
    Raises: NotReady: the log is away. SnapshotMismatch: it is not the one that the store names, it
        has lost changes that are archived, or changes were trimmed that are not. StoreError.
    """
    head = (await log.state()).head
    kept = Archive(store, log.collection, head.log_id)
    while True:
        numbers = await asyncio.to_thread(kept.numbers)
        end = await asyncio.to_thread(kept.end)
        _check_not_behind(head, end)
        # The first segment may be empty: it says that nothing is missing before it.
        if numbers and end.covers(head):
            return kept
        rows, after = await _next_rows(log, end, head)
        try:
            await asyncio.to_thread(kept.add, rows, end, after)
        except AlreadyExists:
            continue


async def _next_rows(
    log: ChangeLog, end: Watermark, head: Watermark
) -> tuple[list[ArchivedChange], Watermark]:
    """Reads what follows a position, up to the size of a segment."""
    rows: list[ArchivedChange] = []
    size = 0
    at = end
    while not at.covers(head) and len(rows) < SEGMENT_CHANGES and size < SEGMENT_BYTES:
        behind = {
            partition: position
            for partition, position in enumerate(at.positions)
            if position < head.positions[partition]
        }
        entries = await log.read(behind, limit=_READ_AT_ONCE)
        if not entries:
            raise SnapshotMismatch(
                f"change log {head.log_id} gives nothing after what is archived, though it said "
                "that there is more: it was set back; try again"
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
                f"change log {head.log_id} ends at {at} in partition {partition}, {archived_at} "
                "changes of it are archived: it has lost changes; bring back the Redis that has "
                "them, or start a new log with nearline changes reset"
            )

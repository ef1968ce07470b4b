"""A change log in memory, with the semantics of the real one and switches for its faults."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nearline.contract import WriteOutcome
from nearline.errors import InvalidRequest, NotReady, SnapshotMismatch
from nearline.store.snapshot import PARTITIONS, partition_of
from retrieval.changelog.change_log import AppendResult, LogDiverged, LogState, PartitionEnd
from retrieval.changelog.codec import content_digest
from retrieval.changelog.records import ChangeEntry, ChangeKind, ChangeResult, ChangeWrite
from retrieval.protocols.watermark import Watermark


def _now_us() -> int:
    return time.time_ns() // 1_000


@dataclass(slots=True)
class _Partition:
    """One partition; entries[0] is the change after `trimmed`."""

    entries: list[ChangeEntry] = field(default_factory=list)
    trimmed: int = 0
    # By id: the version; negative where that change deleted the item.
    versions: dict[str, int] = field(default_factory=dict)
    done: dict[str, tuple[str, list[ChangeResult]]] = field(default_factory=dict)
    # By position, of changes that named it: their place in time.
    places: dict[int, int] = field(default_factory=dict)
    # A reader beyond this position has seen changes that are lost.
    set_back_to: int | None = None

    @property
    def head(self) -> int:
        return self.trimmed + len(self.entries)


class NoUsers:
    """The state of users when there are none."""

    async def count_logged(self, collection: str) -> int:
        return 0

    async def deleted(self, collection: str, user_ids: Sequence[str]) -> Mapping[str, int]:
        return {}

    async def attributes(
        self, collection: str, user_ids: Sequence[str]
    ) -> Mapping[str, Mapping[str, str | float | bool]]:
        return {}


class MemoryLog:
    """A ChangeLog in memory, for one event loop.

    Args:
        collection: Name of the collection.
        log_id: The log; empty: a new one.
        clock: Gives the time of an entry, microseconds since 1970.
    Attributes:
        undurable: Appends append, but cannot promise durability.
        appends, reads: Calls so far, the failed ones included.
    """

    def user_states(self) -> NoUsers:
        """Returns an empty state of users."""
        return NoUsers()

    def __init__(
        self,
        collection: str = "default",
        log_id: str = "",
        clock: Callable[[], int] = _now_us,
    ) -> None:
        self._collection = collection
        self._clock = clock
        self._partitions = [_Partition() for _ in range(PARTITIONS)]
        self._keys: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._away = self._foreign = False
        self.log_id = log_id or secrets.token_hex(16)
        self.undurable = False
        self.appends = self.reads = 0

    @property
    def collection(self) -> str:
        return self._collection

    @property
    def away(self) -> bool:
        """Whether the log does not answer."""
        return self._away

    @away.setter
    def away(self, away: bool) -> None:
        self._away = away
        self._wake()

    @property
    def foreign(self) -> bool:
        """Whether the log is not the one that the store names."""
        return self._foreign

    @foreign.setter
    def foreign(self, foreign: bool) -> None:
        self._foreign = foreign
        self._wake()

    def set_back(self, partition: int, position: int) -> None:
        """Loses the changes after a position, like a failover; a reader is notified once."""
        part = self._partitions[partition]
        lost = part.entries[position - part.trimmed :]
        del part.entries[position - part.trimmed :]
        for entry in lost:
            part.versions.pop(entry.change.document_id, None)
        for entry in part.entries:
            deleted = entry.change.kind is ChangeKind.DELETE
            part.versions[entry.change.document_id] = -entry.position if deleted else entry.position
        part.set_back_to = position
        self._wake()

    async def state(self) -> LogState:
        self._check()
        return LogState(self._watermark("head"), self._watermark("trimmed"))

    async def append(
        self,
        writes: Sequence[ChangeWrite],
        idempotency_key: str = "",
        timeout_s: float | None = None,
    ) -> AppendResult:
        self.appends += 1
        self._check()
        digest = content_digest(writes)
        if idempotency_key and self._keys.setdefault(idempotency_key, digest) != digest:
            raise InvalidRequest(
                f"idempotency key {idempotency_key!r} was used for another request; use a new one",
                field="idempotency_key",
            )
        results: list[ChangeResult | None] = [None] * len(writes)
        numbers: dict[int, list[int]] = {}
        for number, write in enumerate(writes):
            numbers.setdefault(partition_of(write.change.document_id), []).append(number)
        for partition, at in numbers.items():
            part = self._partitions[partition]
            if idempotency_key in part.done:
                written = part.done[idempotency_key][1]
            else:
                written = [self._written(partition, writes[number]) for number in at]
                if idempotency_key:
                    part.done[idempotency_key] = digest, written
            for number, one in zip(at, written, strict=True):
                results[number] = one
        self._wake()
        if self.undurable:
            raise NotReady(
                "the change log cannot promise durability; try again with the same key",
                retry_after_s=2.0,
            )
        watermark = Watermark(self.log_id)
        return AppendResult(
            [one for one in results if one is not None],
            watermark.advanced({one: self._partitions[one].head for one in numbers}),
        )

    async def read(
        self, after: Mapping[int, int], *, limit: int = 256, wait_s: float = 0.0
    ) -> list[ChangeEntry]:
        self.reads += 1
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        while True:
            self._check()
            found = [entry for one, last in after.items() for entry in self._next(one, last, limit)]
            left = until - loop.time()
            if found or left <= 0:
                return found
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                continue

    async def size_bytes(self) -> int:
        """Returns the size of its entries, at 100 bytes each."""
        state = await self.state()
        return 100 * (sum(state.head.positions) - sum(state.trimmed.positions))

    def forget_read(self) -> None:
        """Entries are not checked."""

    async def confirm(self, partitions: Iterable[int]) -> Mapping[int, PartitionEnd]:
        self._check()
        return {one: PartitionEnd(self._partitions[one].head, b"") for one in partitions}

    async def nonces(self, positions: Mapping[int, int]) -> Mapping[int, bytes]:
        return {}

    async def restore(
        self, partition: int, after: PartitionEnd, entries: Sequence[ChangeEntry]
    ) -> None:
        raise AssertionError("its entries have no nonces, so nothing is known to be lost")

    async def trim(self, upto: Watermark, archived: Mapping[int, PartitionEnd] = {}) -> int:
        self._check()
        total = 0
        for part, position in zip(self._partitions, upto.positions, strict=True):
            gone = part.entries[: max(position - part.trimmed, 0)]
            for entry in gone:
                if abs(part.versions.get(entry.change.document_id, 0)) == entry.position:
                    del part.versions[entry.change.document_id]
            part.entries = part.entries[len(gone) :]
            part.trimmed += len(gone)
            total += len(gone)
        return total

    def _written(self, partition: int, write: ChangeWrite) -> ChangeResult:
        part = self._partitions[partition]
        change = write.change
        kept = part.versions.get(change.document_id, 0)
        if abs(kept) > write.base_position:
            exists, version = kept > 0, max(kept, 0)
        else:
            exists, version = write.base_version is not None, write.base_version or 0
        last = self._place(part, abs(kept))
        if write.as_of_us is not None and last >= write.as_of_us:
            same = last == write.as_of_us
            return ChangeResult(
                WriteOutcome.UNCHANGED if same else WriteOutcome.SUPERSEDED, abs(kept)
            )
        if write.if_version not in (None, version):
            return ChangeResult(
                WriteOutcome.REJECTED,
                version,
                "CONFLICT",
                f"the item has version {version}, not {write.if_version}",
            )
        if not exists and change.kind is not ChangeKind.UPSERT:
            return ChangeResult(WriteOutcome.ABSENT, 0)
        position = part.head + 1
        if write.as_of_us is not None:
            part.places[position] = write.as_of_us
        last = part.entries[-1].time_us if part.entries else 0
        part.entries.append(ChangeEntry(partition, position, max(self._clock(), last), change))
        deleted = change.kind is ChangeKind.DELETE
        part.versions[change.document_id] = -position if deleted else position
        if deleted:
            return ChangeResult(WriteOutcome.DELETED, position)
        return ChangeResult(WriteOutcome.REPLACED if exists else WriteOutcome.APPLIED, position)

    def _place(self, part: _Partition, position: int) -> int:
        """Returns the effective time of a change; -1 if it was trimmed or does not exist."""
        if position <= part.trimmed:
            return -1
        return part.places.get(position, part.entries[position - part.trimmed - 1].time_us)

    def _next(self, partition: int, last: int, limit: int) -> list[ChangeEntry]:
        part = self._partitions[partition]
        if last < part.trimmed:
            raise SnapshotMismatch(
                f"changes {last + 1} to {part.trimmed} of partition {partition} were trimmed"
            )
        back = part.set_back_to
        if last > part.head or (back is not None and last > back):
            part.set_back_to = None
            raise LogDiverged(
                f"partition {partition} of change log {self.log_id} was set back behind {last}"
            )
        return part.entries[last - part.trimmed :][:limit]

    def _watermark(self, end: str) -> Watermark:
        return Watermark(self.log_id, tuple(getattr(part, end) for part in self._partitions))

    def _check(self) -> None:
        if self._away:
            raise NotReady("the change log does not answer", retry_after_s=2.0)
        if self._foreign:
            raise SnapshotMismatch(
                f"the store names change log {self.log_id}, Redis has another; wiped or foreign"
            )

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

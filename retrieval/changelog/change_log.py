"""The interface of change logs, and the log of a service without Redis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from nearline.errors import NotReady, SnapshotMismatch
from retrieval.changelog.records import (
    UNKNOWN_NONCES,
    ChangeEntry,
    ChangeResult,
    ChangeWrite,
    Nonces,
)
from retrieval.protocols.watermark import Watermark


class LogDiverged(SnapshotMismatch):
    """Changes that a reader has seen are gone or have been replaced."""


class AppendResult(NamedTuple):
    """The results of writes in order, and the position that contains them all."""

    results: Sequence[ChangeResult]
    watermark: Watermark


class LogState(NamedTuple):
    """The extent of a log: its last positions, and the last positions that were trimmed.

    nonces: Of the last entries.
    """

    head: Watermark
    trimmed: Watermark
    nonces: Nonces = UNKNOWN_NONCES


class PartitionEnd(NamedTuple):
    """The last entry of a partition, or of what is archived of it. nonce: Empty if unknown."""

    position: int
    nonce: bytes


class ChangeLog(Protocol):
    """The change log of one collection: 64 partitions, each numbered from 1 without gaps.

    Every method raises NotReady, with retry_after_s, if the log does not answer, and
    SnapshotMismatch if it is not the log that the store names (a wiped or wrong Redis).
    """

    @property
    def collection(self) -> str:
        """Name of the collection."""
        ...

    async def state(self) -> LogState:
        """Returns the extent of the log; creates the log if the store names none."""
        ...

    async def size_bytes(self) -> int:
        """Returns the memory of the log, as Redis estimates it. Raises: NotReady."""

    async def append(
        self,
        writes: Sequence[ChangeWrite],
        idempotency_key: str = "",
        timeout_s: float | None = None,
    ) -> AppendResult:
        """Appends changes; returns when they are durable.

        The changes of one partition are appended in order, all or none. If a partition has seen the
        key within 24 hours, its changes are not appended again: the first results are returned.

        Args:
            writes: 1..1024 complete changes, each id at most once.
            idempotency_key: Optional; makes the request safe to repeat.
            timeout_s: Optional; None uses a default.
        Raises: as the class; NotReady: durability cannot be guaranteed, and the message says why;
            the changes may have been appended: retry with the same key. InvalidRequest: the key was
            used for a different request.
        """
        ...

    async def read(
        self, after: Mapping[int, int], *, limit: int = 256, wait_s: float = 0.0
    ) -> list[ChangeEntry]:
        """Reads the next entries of some partitions.

        Args:
            after: The last position already read, by partition.
            limit: Maximum entries per partition.
            wait_s: Seconds to wait for an entry if there is none.
        Returns: Entries, in order and without gaps within a partition; possibly none.
        Raises: as the class; SnapshotMismatch: the next entries were trimmed; LogDiverged: the log
            was set back behind `after` (by a failover that lost changes).
        """
        ...

    def forget_read(self) -> None:
        """Forgets what was read: the next entries are not checked against it."""
        ...

    async def confirm(self, partitions: Iterable[int]) -> Mapping[int, PartitionEnd]:
        """Returns the ends of some partitions, which as many replicas have as a write needs.

        Raises: as the class; NotReady: too few replicas confirm them.
        """
        ...

    async def nonces(self, positions: Mapping[int, int]) -> Mapping[int, bytes]:
        """Returns the nonces of some entries, by partition; none for those that the log lacks."""
        ...

    async def restore(
        self, partition: int, after: PartitionEnd, entries: Sequence[ChangeEntry]
    ) -> None:
        """Inserts entries that the log lost in a failover; returns when they are durable.

        Entries that followed are renumbered after them. Readers that have seen these meet
        LogDiverged. Nothing happens if the log has the lost entries.

        Args:
            after: The last entry that is not lost.
            entries: The lost ones, in order and without gaps.
        Raises: as the class; LogDiverged: the log has another entry there, or none.
        """
        ...

    async def trim(self, upto: Watermark, archived: Mapping[int, PartitionEnd] = {}) -> int:
        """Removes all changes up to a position; returns their number.

        Args:
            archived: Ends of partitions that the log must have.
        Raises: as the class; LogDiverged: it has others.
        """
        ...


class AbsentLog:
    """A `ChangeLog` that always raises NotReady and names the missing option."""

    def __init__(self, collection: str) -> None:
        self._collection = collection

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self._collection

    async def state(self) -> LogState:
        """Raises NotReady."""
        raise self._absent()

    async def size_bytes(self) -> int:
        """Raises NotReady."""
        raise self._absent()

    async def append(
        self,
        writes: Sequence[ChangeWrite],
        idempotency_key: str = "",
        timeout_s: float | None = None,
    ) -> AppendResult:
        """Raises NotReady."""
        raise self._absent()

    async def read(
        self, after: Mapping[int, int], *, limit: int = 256, wait_s: float = 0.0
    ) -> list[ChangeEntry]:
        """Raises NotReady."""
        raise self._absent()

    def forget_read(self) -> None:
        """Does nothing: nothing was read."""

    async def confirm(self, partitions: Iterable[int]) -> Mapping[int, PartitionEnd]:
        """Raises NotReady."""
        raise self._absent()

    async def nonces(self, positions: Mapping[int, int]) -> Mapping[int, bytes]:
        """Raises NotReady."""
        raise self._absent()

    async def restore(
        self, partition: int, after: PartitionEnd, entries: Sequence[ChangeEntry]
    ) -> None:
        """Raises NotReady."""
        raise self._absent()

    async def trim(self, upto: Watermark, archived: Mapping[int, PartitionEnd] = {}) -> int:
        """Raises NotReady."""
        raise self._absent()

    def _absent(self) -> NotReady:
        return NotReady(
            f"collection {self._collection!r} has a change log, but no --redis was given: live "
            "changes since the snapshot are not served; start the service with --redis URL "
            "(nearline up: without --no-redis)"
        )

"""The interface of change logs, and the log of a service without Redis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from nearline.errors import NotReady, SnapshotMismatch
from retrieval.changelog.records import ChangeEntry, ChangeResult, ChangeWrite
from retrieval.protocols.watermark import Watermark


class LogDiverged(SnapshotMismatch):
    """Changes that a reader has seen are gone or have been replaced."""


class AppendResult(NamedTuple):
    """The results of writes in order, and the position that contains them all."""

    results: Sequence[ChangeResult]
    watermark: Watermark


class LogState(NamedTuple):
    """The extent of a log: its last positions, and the last positions that were trimmed."""

    head: Watermark
    trimmed: Watermark


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

    async def trim(self, upto: Watermark) -> int:
        """Removes all changes up to a position; returns their number."""
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

    async def trim(self, upto: Watermark) -> int:
        """Raises NotReady."""
        raise self._absent()

    def _absent(self) -> NotReady:
        return NotReady(
            f"collection {self._collection!r} has a change log, but no --redis was given: live "
            "changes since the snapshot are not served; start the service with --redis URL "
            "(nearline up: without --no-redis)"
        )

"""The seam between Nearline and what keeps the change log of a collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from nearline.errors import SnapshotMismatch
from retrieval.changelog.records import ChangeEntry, ChangeResult, ChangeWrite
from retrieval.protocols.watermark import Watermark


class LogDiverged(SnapshotMismatch):
    """Changes that a reader has seen are gone, or are other ones now."""


class AppendResult(NamedTuple):
    """What became of writes, in their order, and the position that has all of them."""

    results: Sequence[ChangeResult]
    watermark: Watermark


class LogState(NamedTuple):
    """How far a log goes: last positions, and the last positions that were trimmed."""

    head: Watermark
    trimmed: Watermark


class ChangeLog(Protocol):
    """The change log of one collection: 64 partitions, each numbered from 1 without gaps.

    Every method raises NotReady, with retry_after_s, where the log does not answer, and
    SnapshotMismatch where it is not the log that the store names (a wiped or foreign Redis).
    """

    @property
    def collection(self) -> str:
        """Name of the collection."""
        ...

    async def state(self) -> LogState:
        """Returns how far it goes; makes the log where the store names none yet."""
        ...

    async def append(
        self,
        writes: Sequence[ChangeWrite],
        idempotency_key: str = "",
        timeout_s: float | None = None,
    ) -> AppendResult:
        """Appends changes; returns when they are durable.

        Those of one partition are appended whole or not at all, in order. With a key that a
        partition has seen within 24 hours, its part is not appended again: what became of it then
        is told again.

        Args:
            writes: 1..1024, no id twice; each change complete.
        Raises: as the class; NotReady: durability cannot be promised (says why; whether it was
            appended is then not known: try again with the same key). InvalidRequest: the key was
            used with another content.
        """
        ...

    async def read(
        self, after: Mapping[int, int], *, limit: int = 256, wait_s: float = 0.0
    ) -> list[ChangeEntry]:
        """Reads the next entries of some partitions.

        Args:
            after: By partition, the last position already read.
            limit: Most entries of one partition.
            wait_s: Time to wait for the first entry, where there is none.
        Returns: Entries, those of a partition in order and without a gap; none where none came.
        Raises: as the class; SnapshotMismatch: what comes next was trimmed; LogDiverged: the log
            has been set back behind `after` (by a failover that lost changes).
        """
        ...

    async def trim(self, upto: Watermark) -> int:
        """Forgets all changes up to a position; gives how many there were."""
        ...

"""Replaces a change log whose Redis was not configured for this service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nearline.errors import NotReady
from retrieval.changelog.change_log import AppendResult, LogState
from retrieval.changelog.records import ChangeEntry, ChangeWrite
from retrieval.protocols.watermark import Watermark


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
            "changes since the snapshot are not served; start the service with --redis URL"
        )

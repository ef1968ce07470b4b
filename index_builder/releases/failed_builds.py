"""Builds of upkeep that failed or were refused, so that it does not repeat them at once."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from nearline.store.snapshot import Store
from retrieval.snapshots import retention

# After a refusal by the gate, the changes since may make a difference, and each attempt costs as
# much as a build. Anything else may pass sooner; the pause doubles with each failure in a row.
_REFUSED_S = 6 * 3600.0
_FAILED_S = 300.0


class _Failure(NamedTuple):
    """A snapshot that does not go live (empty: none was built), the epoch then, and the pause.

    until_s: Monotonic time. in_a_row: Failures in a row, with this one.
    """

    snapshot_id: str
    epoch: int
    until_s: float
    in_a_row: int


class FailedBuilds:
    """The newest failure of each collection, in memory.

    Args:
        store: The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._newest: dict[str, _Failure] = {}

    async def pauses(self, name: str) -> bool:
        """Returns whether the next build has to wait; not once another snapshot is current."""
        failure = self._newest.get(name)
        if failure is None or time.monotonic() >= failure.until_s:
            return False
        record = await asyncio.to_thread(self._store.alias_in_force, name)
        return record.epoch == failure.epoch

    async def add(self, name: str, snapshot_id: str, *, refused: bool) -> None:
        """Adds a failure, and removes the snapshot of the one before.

        The newest snapshot stays, so that it can be examined, or promoted with a reason.

        Args:
            snapshot_id: The snapshot that was built; empty if none was.
            refused: Whether the gate refused it.
        """
        earlier = self._newest.get(name)
        in_a_row = 1 + (earlier.in_a_row if earlier is not None else 0)
        pause_s = _REFUSED_S if refused else min(_REFUSED_S, _FAILED_S * 2 ** min(in_a_row - 1, 16))
        record = await asyncio.to_thread(self._store.alias_in_force, name)
        self._newest[name] = _Failure(
            snapshot_id, record.epoch, time.monotonic() + pause_s, in_a_row
        )
        await self._remove(name, earlier)

    async def clear(self, name: str) -> None:
        """Forgets the failures, since a later build succeeded, and removes the last snapshot."""
        await self._remove(name, self._newest.pop(name, None))

    async def _remove(self, name: str, failure: _Failure | None) -> None:
        if failure is not None and failure.snapshot_id:
            await asyncio.to_thread(retention.remove_unused, self._store, name, failure.snapshot_id)

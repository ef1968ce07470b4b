"""Snapshots that the gate refused, so that upkeep does not build the same again at once."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from nearline.store.snapshot import Store
from retrieval.snapshots import retention

# The changes since may make a difference, and each attempt costs as much as a build.
_RETRY_S = 6 * 3600.0


class _Refusal(NamedTuple):
    """A refused snapshot (empty: unknown), the epoch then, and when."""

    snapshot_id: str
    epoch: int
    time_s: float


class Refusals:
    """The newest refusal of each collection, in memory.

    Args:
        store: The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._newest: dict[str, _Refusal] = {}

    async def is_recent(self, name: str) -> bool:
        """Returns whether the gate refused a successor of the current snapshot within six hours."""
        refusal = self._newest.get(name)
        if refusal is None or time.monotonic() - refusal.time_s >= _RETRY_S:
            return False
        record = await asyncio.to_thread(self._store.alias_in_force, name)
        return record.epoch == refusal.epoch

    async def note(self, name: str, snapshot_id: str) -> None:
        """Notes a refusal, and removes the snapshot that was refused before.

        The refused snapshot stays, so that it can be examined, or promoted with a reason.
        """
        earlier = self._newest.get(name)
        record = await asyncio.to_thread(self._store.alias_in_force, name)
        self._newest[name] = _Refusal(snapshot_id, record.epoch, time.monotonic())
        if earlier is not None and earlier.snapshot_id:
            await asyncio.to_thread(retention.remove_unused, self._store, name, earlier.snapshot_id)

    def forget(self, name: str) -> None:
        """Forgets a refusal, since a later snapshot passed."""
        self._newest.pop(name, None)

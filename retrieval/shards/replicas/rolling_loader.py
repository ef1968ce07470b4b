"""Sees to it that servers hold a snapshot, replica group by replica group."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from typing import Generic, Protocol, TypeVar

from nearline.errors import (
    NearlineError,
    NotReady,
    Overloaded,
    SnapshotCorrupt,
    SnapshotMismatch,
    Unsupported,
)
from nearline.retry import Backoff
from retrieval.shards.client import ShardKey
from retrieval.shards.replicas.replica import Peer, Replica

_AGAIN_S = 1.0
_BACKOFF = Backoff(_AGAIN_S, 60.0)
# The snapshot is at fault, for good. Want of memory may pass.
_FAULTS = (SnapshotCorrupt, SnapshotMismatch)
_REFUSALS = (*_FAULTS, Overloaded)
_log = logging.getLogger(__name__)


class LoaderPeer(Peer, Protocol):
    """What loading needs of a client."""

    async def load(self, collection: str, snapshot_id: str) -> None:
        """Has the server load its shards of a snapshot; returns when they are ready."""
        ...


_P = TypeVar("_P", bound=LoaderPeer)


class SnapshotLoader(Generic[_P]):
    """Tells servers to load a snapshot until it is closed; those that hold it are left alone.

    A group is told when all of the group before have loaded, refused or failed, so that one group
    at most is busy with loading while the others answer.

    Args:
        collection: Collection name.
        snapshot_id: What to load.
        groups: By replica group: the shards that each server should hold.
    """

    def __init__(
        self,
        collection: str,
        snapshot_id: str,
        groups: Sequence[Mapping[Replica[_P], Set[int]]],
    ) -> None:
        self.collection = collection
        self.snapshot_id = snapshot_id
        self._groups = groups
        self._under_way: set[Replica[_P]] = set()
        self._refusals: dict[Replica[_P], NearlineError] = {}
        self._delays: dict[Replica[_P], Iterator[float]] = {}
        self._again_at: dict[Replica[_P], float] = {}
        self._task = asyncio.ensure_future(self._run())

    def under_way(self) -> bool:
        """Returns whether a server that answers is loading now."""
        return any(not replica.health.away for replica in self._under_way)

    def refusal(self, numbers: Collection[int]) -> NearlineError | None:
        """Returns what a server of one of these shards last said against the snapshot."""
        for number in numbers:
            for error in self._said(number):
                if error is not None:
                    return error
        return None

    def fault(self, numbers: Collection[int]) -> NearlineError | None:
        """Returns the fault of the snapshot that all servers of one of these shards found."""
        for number in numbers:
            said = self._said(number)
            if said and all(isinstance(error, _FAULTS) for error in said):
                return said[0]
        return None

    def _said(self, number: int) -> list[NearlineError | None]:
        return [
            self._refusals.get(replica)
            for group in self._groups
            for replica, held in group.items()
            if number in held
        ]

    async def close(self) -> None:
        """Stops; loads under way go on at the servers."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            for group in self._groups:
                await asyncio.gather(
                    *(
                        self._load(replica)
                        for replica, held in group.items()
                        if self._due(replica, held)
                    )
                )
            await asyncio.sleep(_AGAIN_S)

    def _due(self, replica: Replica[_P], held: Set[int]) -> bool:
        keys = (ShardKey(self.collection, self.snapshot_id, number) for number in held)
        if replica.health.away or all(key in replica.held for key in keys):
            return False
        return self._again_at.get(replica, 0.0) <= asyncio.get_running_loop().time()

    async def _load(self, replica: Replica[_P]) -> None:
        call = replica.attempt(replica.peer.load(self.collection, self.snapshot_id))
        self._under_way.add(replica)
        try:
            await asyncio.wait((call,))
        finally:
            self._under_way.discard(replica)
            call.cancel()
        if call.cancelled():
            # Silent: the others should not wait for it.
            self._take_in(replica, NotReady(replica.health.why))
        elif (error := call.exception()) is not None:
            self._take_in(replica, error)
        else:
            self._refusals.pop(replica, None)
            self._delays.pop(replica, None)
            await replica.poll()

    def _take_in(self, replica: Replica[_P], error: BaseException) -> None:
        delay_s = next(self._delays.setdefault(replica, _BACKOFF.delays()))
        self._again_at[replica] = asyncio.get_running_loop().time() + delay_s
        if isinstance(error, _REFUSALS):
            self._refusals[replica] = error
        if not isinstance(error, Unsupported):
            _log.warning(
                "snapshot not loaded",
                extra={
                    "address": replica.address,
                    "collection": self.collection,
                    "snapshot_id": self.snapshot_id,
                    "reason": str(error),
                    "retry_in_s": delay_s,
                },
            )

"""Makes shard servers load a snapshot, one replica group after another."""

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

_POLL_S = 1.0
_BACKOFF = Backoff(_POLL_S, 60.0)
# The snapshot itself is faulty, permanently; a lack of memory may be temporary.
_FAULTS = (SnapshotCorrupt, SnapshotMismatch)
_REFUSALS = (*_FAULTS, Overloaded)
_log = logging.getLogger(__name__)


class LoaderPeer(Peer, Protocol):
    """The client methods that loading needs."""

    async def load(self, collection: str, snapshot_id: str) -> None:
        """Makes the server load its shards of a snapshot; returns when they are ready."""
        ...


_P = TypeVar("_P", bound=LoaderPeer)


class SnapshotLoader(Generic[_P]):
    """Keeps telling servers that lack a snapshot to load it, until closed.

    A replica group starts when every server of the group before has loaded, refused or failed. So
    at most one group is busy loading while the others answer.

    Args:
        collection: Collection name.
        snapshot_id: Snapshot to load.
        groups: For each replica group, the shards that each server should hold.
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
        self._loading: set[Replica[_P]] = set()
        self._refusals: dict[Replica[_P], NearlineError] = {}
        self._delays: dict[Replica[_P], Iterator[float]] = {}
        self._retry_at: dict[Replica[_P], float] = {}
        self._task = asyncio.ensure_future(self._run())

    def is_loading(self) -> bool:
        """Returns whether a reachable server is loading now."""
        return any(not replica.health.away for replica in self._loading)

    def refusal(self, numbers: Collection[int]) -> NearlineError | None:
        """Returns the last error with which a server of these shards refused the snapshot."""
        for number in numbers:
            for error in self._errors(number):
                if error is not None:
                    return error
        return None

    def fault(self, numbers: Collection[int]) -> NearlineError | None:
        """Returns the fault of the snapshot if all servers of one of these shards report one."""
        for number in numbers:
            errors = self._errors(number)
            if errors and all(isinstance(error, _FAULTS) for error in errors):
                return errors[0]
        return None

    def _errors(self, number: int) -> list[NearlineError | None]:
        return [
            self._refusals.get(replica)
            for group in self._groups
            for replica, held in group.items()
            if number in held
        ]

    async def close(self) -> None:
        """Stops; running loads continue on the servers."""
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
                        if self._is_due(replica, held)
                    )
                )
            await asyncio.sleep(_POLL_S)

    def _is_due(self, replica: Replica[_P], held: Set[int]) -> bool:
        keys = (ShardKey(self.collection, self.snapshot_id, number) for number in held)
        if replica.health.away or all(key in replica.shards for key in keys):
            return False
        return self._retry_at.get(replica, 0.0) <= asyncio.get_running_loop().time()

    async def _load(self, replica: Replica[_P]) -> None:
        call = replica.run_task(replica.peer.load(self.collection, self.snapshot_id))
        self._loading.add(replica)
        try:
            await asyncio.wait((call,))
        finally:
            self._loading.discard(replica)
            call.cancel()
        if call.cancelled():
            # The server is silent; other servers should not wait for it.
            self._record_error(replica, NotReady(replica.health.reason))
        elif (error := call.exception()) is not None:
            self._record_error(replica, error)
        else:
            self._refusals.pop(replica, None)
            self._delays.pop(replica, None)
            await replica.poll()

    def _record_error(self, replica: Replica[_P], error: BaseException) -> None:
        delay_s = next(self._delays.setdefault(replica, _BACKOFF.delays()))
        self._retry_at[replica] = asyncio.get_running_loop().time() + delay_s
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

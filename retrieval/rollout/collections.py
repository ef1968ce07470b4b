"""Collections that a router serves; each request is answered from one snapshot."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from nearline.access.method_guard import current_caller
from nearline.errors import NotFound, NotReady, SnapshotGone
from nearline.store.snapshot import check_collection
from retrieval.protocols import metrics
from retrieval.protocols.request_validation import suggest_names
from retrieval.rollout.split import Requester
from retrieval.rollout.trial import Trial
from retrieval.search import fanout
from retrieval.search.collection import ServedCollection
from retrieval.snapshots.loaded_snapshots import LoadedSnapshot, LoadedSnapshots

_R = TypeVar("_R")
DRAIN_S = 10.0


class ServedCollections:
    """The collections that a router serves; assigns each request to a loaded snapshot.

    Args:
        drain_s: A snapshot that no alias names any more is unloaded this many seconds after its
            last request.
        clock: Returns monotonic seconds.

    loaded: The loaded snapshots.
    trials: Canary trials that get requests here, by collection.
    """

    def __init__(
        self, drain_s: float = DRAIN_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.loaded: LoadedSnapshots[ServedCollection] = LoadedSnapshots(drain_s, clock)
        self.trials: dict[str, Trial] = {}
        # Whether the collections of the store are known here.
        self.started = False

    @property
    def in_force(self) -> Sequence[ServedCollection]:
        """The current snapshots, in order of the names of their collections."""
        return [held.value for held in self.loaded.in_force]

    def canary(self, collection: str) -> ServedCollection | None:
        """Returns the canary of a collection that gets requests; None if there is none."""
        trial = self.trials.get(collection)
        return None if trial is None else trial.canary

    def check_served(self, collection: str) -> None:
        """Raises NotReady if nothing is loaded, NotFound if the collection does not exist."""
        if self.loaded.current(collection) is None:
            raise self._unknown(collection)

    def serve(self, served: ServedCollection) -> None:
        """Makes a snapshot current; running requests finish on the previous one."""
        self.loaded.add(served.name, served.snapshot_id, served)
        self.loaded.make_current(served.name, served.snapshot_id)
        metrics.epoch_in_force.labels(served.name).set(served.epoch)

    async def answer(
        self,
        collection: str,
        ask: Callable[[ServedCollection], Awaitable[_R]],
        snapshot_id: str = "",
        requester: Requester | None = None,
    ) -> _R:
        """Answers a request from one snapshot, which stays loaded until the answer is complete.

        If a shard has released the snapshot in the meantime, the whole request is repeated once on
        the snapshot that is current then. `ask` has a deadline of its own, which covers both
        attempts.

        Args:
            collection: Name of the collection.
            ask: Answers the request from the snapshot passed to it, and from no other.
            snapshot_id: Snapshot that the caller named; empty for the current one.
            requester: User and session of a request that a canary may answer. If None, the current
                snapshot answers it.
        Raises: NotReady: Nothing is loaded. NotFound: The collection does not exist. SnapshotGone:
            The named snapshot is not loaded. Any error of `ask`.
        """
        trial = self.trials.get(collection)
        if requester and trial and not snapshot_id and trial.covers(requester.surface):
            return await trial.answer(partial(self._answer, collection, ask, ""), ask, requester)
        return await self._answer(collection, ask, snapshot_id)

    async def _answer(
        self, collection: str, ask: Callable[[ServedCollection], Awaitable[_R]], snapshot_id: str
    ) -> _R:
        with self._select(collection, snapshot_id) as served:
            try:
                return await ask(served)
            except SnapshotGone:
                if snapshot_id:
                    raise
        metrics.snapshot_retries.labels(served.name).inc()
        with self._select(collection, "") as served, fanout.tolerate_missing_snapshot():
            return await ask(served)

    def _select(self, collection: str, snapshot_id: str) -> LoadedSnapshot[ServedCollection]:
        held = self.loaded.current(collection)
        if held is None:
            raise self._unknown(collection)
        if not snapshot_id:
            return held
        named = self.loaded.get(collection, snapshot_id)
        if named is None:
            raise SnapshotGone(
                f"snapshot {snapshot_id} of {collection!r} is not loaded, but "
                f"{held.value.snapshot_id} is; retry the whole request without naming a snapshot",
                field="options.snapshot_id",
            )
        return named

    def _unknown(self, collection: str) -> NotReady | NotFound:
        known = [*filter(current_caller().may_read, (served.name for served in self.in_force))]
        if not self.in_force and not self.started:
            return NotReady(
                "no collection is loaded yet; wait until the health check reports SERVING"
            )
        check_collection(collection)
        remedy = (
            f"the closest names are: {suggest_names(collection, known)}"
            if known
            else f"there is none yet; create it: nearline collections create {collection}"
        )
        return NotFound(
            f"collection {collection!r} is not served here; {remedy}", field="collection"
        )

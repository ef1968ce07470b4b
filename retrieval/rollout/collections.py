"""The collections that a router serves, each request answered wholly from one snapshot."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from nearline.errors import NotFound, NotReady, SnapshotGone
from nearline.snapshot import check_collection
from retrieval.protocols import metrics
from retrieval.protocols.suggestions import suggest_names
from retrieval.rollout.split import Requester
from retrieval.rollout.trial import Trial
from retrieval.search import fanout
from retrieval.search.collection import ServedCollection
from retrieval.snapshots.loaded import LoadedSnapshot, LoadedSnapshots

_R = TypeVar("_R")
DRAIN_S = 10.0


class ServedCollections:
    """What a router has loaded; hands each request one snapshot to be answered from.

    Args:
        drain_s: Seconds that a snapshot stays after its last request, once no alias names it.
        clock: Gives seconds that never go back.

    trials: Canaries that get requests here, by collection.
    """

    def __init__(
        self, drain_s: float = DRAIN_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.holdings: LoadedSnapshots[ServedCollection] = LoadedSnapshots(drain_s, clock)
        self.trials: dict[str, Trial] = {}

    @property
    def in_force(self) -> Sequence[ServedCollection]:
        """What is served, by name of the collection."""
        return [held.value for held in self.holdings.in_force]

    def tried(self, collection: str) -> ServedCollection | None:
        """Returns the canary that gets requests of a collection; None: there is none."""
        trial = self.trials.get(collection)
        return None if trial is None else trial.canary

    def check_served(self, collection: str) -> None:
        """Raises NotReady where nothing is loaded, NotFound where there is no such collection."""
        if self.holdings.current(collection) is None:
            raise self._unknown(collection)

    def serve(self, served: ServedCollection) -> None:
        """Serves a snapshot from now on; requests that began before end on the one before."""
        self.holdings.hold(served.name, served.snapshot_id, served)
        self.holdings.flip(served.name, served.snapshot_id)
        metrics.epoch_in_force.labels(served.name).set(served.epoch)

    async def answer(
        self,
        collection: str,
        ask: Callable[[ServedCollection], Awaitable[_R]],
        snapshot_id: str = "",
        asker: Requester | None = None,
    ) -> _R:
        """Answers a request from one snapshot, which stays loaded until the answer is there.

        Where a shard has let go of the snapshot in the meantime, the request is asked whole once
        more, on the snapshot that is in force then. `ask` brings its own deadline: it is the same
        both times.

        Args:
            collection: Name of the collection.
            ask: Answers from the snapshot it is given, and from no other.
            snapshot_id: Snapshot that the caller named; empty: the one in force.
            asker: Whom the request is for: a canary, if there is one, may answer it. None: it may
                not.
        Raises: NotReady: nothing is loaded. NotFound: no such collection. SnapshotGone: the
            snapshot that the caller named is not loaded. Whatever `ask` raises.
        """
        if asker is not None and not snapshot_id and (trial := self.trials.get(collection)):
            return await trial.answer(partial(self._answer, collection, ask, ""), ask, asker)
        return await self._answer(collection, ask, snapshot_id)

    async def _answer(
        self, collection: str, ask: Callable[[ServedCollection], Awaitable[_R]], snapshot_id: str
    ) -> _R:
        with self._held(collection, snapshot_id) as served:
            try:
                return await ask(served)
            except SnapshotGone:
                if snapshot_id:
                    raise
        metrics.snapshot_retries.labels(served.name).inc()
        with self._held(collection, "") as served, fanout.tolerate_missing_snapshot():
            return await ask(served)

    def _held(self, collection: str, snapshot_id: str) -> LoadedSnapshot[ServedCollection]:
        held = self.holdings.current(collection)
        if held is None:
            raise self._unknown(collection)
        if not snapshot_id:
            return held
        named = self.holdings.get(collection, snapshot_id)
        if named is None:
            raise SnapshotGone(
                f"snapshot {snapshot_id} of {collection!r} is not loaded, "
                f"{held.value.snapshot_id} is; retry the whole request without naming a snapshot",
                field="options.snapshot_id",
            )
        return named

    def _unknown(self, collection: str) -> NotReady | NotFound:
        known = [served.name for served in self.in_force]
        if not known:
            return NotReady("no collection is loaded yet; wait for health to be SERVING")
        check_collection(collection)
        return NotFound(
            f"collection {collection!r} is not served here; nearest first, there are: "
            f"{suggest_names(collection, known)}",
            field="collection",
        )

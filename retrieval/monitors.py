"""The monitors of a router, configured by its settings."""

from __future__ import annotations

import asyncio

from nearline import contract as c
from nearline.admission import leave_out
from nearline.store.snapshot import Store
from retrieval.monitoring.drift import DriftMonitor
from retrieval.monitoring.rebuild_requests import RebuildRequests
from retrieval.monitoring.recall import OnRecall, RecallMonitor, SampleShare
from retrieval.monitoring.traffic_recorder import TrafficRecorder
from retrieval.redis_client.connection import Redis
from retrieval.rollout.collections import ServedCollections
from retrieval.router.events import RequestEvent
from retrieval.search.collection import ServedCollection
from retrieval.settings import RouterSettings
from retrieval.shards.provider import ShardProvider


class Monitors:
    """Observes requests: measures recall and drift, and records traffic.

    Args:
        settings: Settings of the router.
        store: Store for recorded requests; holds the golden queries.
        collections: The collections served.
        provider: Reports the progress of live changes.
        redis: Takes requests for rebuilds. Optional; None disables them.
        shares: Returns, for a snapshot that serves as a given arm, the share of its searches to
            repeat with an exact search. If None, the share in the settings applies.
        on_recall: Optional; called with the recall of each repeated search.
    """

    def __init__(
        self,
        settings: RouterSettings,
        store: Store,
        collections: ServedCollections,
        provider: ShardProvider,
        redis: Redis | None = None,
        *,
        shares: SampleShare | None = None,
        on_recall: OnRecall | None = None,
    ) -> None:
        def default_share(collection: ServedCollection, arm: c.Arm | None) -> float:
            return settings.recall_sample

        def ignore(collection: str, arm: c.Arm | None, value: float) -> None:
            pass

        def live_rows(collection: ServedCollection) -> tuple[int, int] | None:
            shards = provider.progress(collection.name, collection.snapshot_id).values()
            # The replicas of a shard have the same changes.
            progress = [replicas[0] for replicas in shards if replicas]
            if not progress:
                return None
            return sum(one.rows for one in progress), sum(one.hidden_rows for one in progress)

        self._recall = RecallMonitor(collections, shares or default_share, on_recall or ignore)
        self._recorder = TrafficRecorder(store, settings.record_share, settings.record_queries)
        self._drift = DriftMonitor(
            store,
            collections,
            settings.drift_sample,
            window_s=settings.drift_window_s,
            live_rows=live_rows,
            limit=settings.drift_rebuild,
            request_rebuild=None if redis is None else RebuildRequests(redis).request,
        )

    def observe(self, event: RequestEvent) -> None:
        """Passes an event to all monitors, unless the server is overloaded.

        It takes a few microseconds, and never raises.
        """
        if leave_out("monitor"):
            return
        self._recall.observe(event)
        self._recorder.observe(event)
        self._drift.observe(event)

    def start(self) -> None:
        """Starts the background work of the monitors on the running loop."""
        for monitor in (self._recall, self._recorder, self._drift):
            monitor.start()

    async def close(self) -> None:
        """Stops the monitors and writes recorded requests; snapshots must still be loaded."""
        await asyncio.gather(self._recall.close(), self._recorder.close(), self._drift.close())

"""All that watches a router, put together by its settings."""

from __future__ import annotations

import asyncio

from nearline import contract as c
from nearline.snapshot import Store
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
    """Those who are told what is asked and answered.

    Args:
        chosen: Settings.
        store: Where requests are recorded, and golden queries lie.
        collections: What is served.
        hosting: Tells how far live changes are.
        redis: Through which rebuilds are asked for; None: they are not.
        shares: Share of searches of a snapshot, as an arm, that are done again exactly; None: that
            of the settings.
        on_recall: Told of the recall of each of these; None: nobody is.
    """

    def __init__(
        self,
        chosen: RouterSettings,
        store: Store,
        collections: ServedCollections,
        hosting: ShardProvider,
        redis: Redis | None = None,
        *,
        shares: SampleShare | None = None,
        on_recall: OnRecall | None = None,
    ) -> None:
        def as_set(served: ServedCollection, arm: c.Arm | None) -> float:
            return chosen.recall_sample

        def tell_nobody(collection: str, arm: c.Arm | None, value: float) -> None:
            pass

        def live_rows(served: ServedCollection) -> tuple[int, int] | None:
            shards = hosting.progress(served.name, served.snapshot_id).values()
            # The replicas of a shard have the same changes.
            each = [replicas[0] for replicas in shards if replicas]
            if not each:
                return None
            return sum(one.rows for one in each), sum(one.hidden_rows for one in each)

        self._recall = RecallMonitor(collections, shares or as_set, on_recall or tell_nobody)
        self._recorder = TrafficRecorder(store, chosen.record_share, chosen.record_queries)
        self._drift = DriftMonitor(
            store,
            collections,
            chosen.drift_sample,
            window_s=chosen.drift_window_s,
            live_rows=live_rows,
            limit=chosen.drift_rebuild,
            request_rebuild=None if redis is None else RebuildRequests(redis).request,
        )

    def observe(self, event: RequestEvent) -> None:
        """Tells all of them; costs some microseconds, and never raises."""
        self._recall.observe(event)
        self._recorder.observe(event)
        self._drift.observe(event)

    def start(self) -> None:
        """Begins what they do beside the requests; on a running loop."""
        for one in (self._recall, self._recorder, self._drift):
            one.start()

    async def close(self) -> None:
        """Stops them; what was recorded is written first. Call it while snapshots are loaded."""
        await asyncio.gather(self._recall.close(), self._recorder.close(), self._drift.close())

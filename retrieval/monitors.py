"""The monitors of a router, configured by its settings."""

from __future__ import annotations

import asyncio

from nearline import contract as c
from nearline.admission import leave_out
from nearline.store.snapshot import Store
from retrieval.monitoring.recall import OnRecall, RecallMonitor, SampleShare
from retrieval.monitoring.traffic_recorder import TrafficRecorder
from retrieval.rollout.collections import ServedCollections
from retrieval.router.events import RequestEvent
from retrieval.search.collection import ServedCollection
from retrieval.settings import RouterSettings


class Monitors:
    """Observes requests: measures recall, and records traffic.

    Args:
        settings: Settings of the router.
        store: Store for recorded requests.
        collections: The collections served.
        shares: Returns, for a snapshot that serves as a given arm, the share of its searches to
            repeat with an exact search. If None, the share in the settings applies.
        on_recall: Optional; called with the recall of each repeated search.
    """

    def __init__(
        self,
        settings: RouterSettings,
        store: Store,
        collections: ServedCollections,
        *,
        shares: SampleShare | None = None,
        on_recall: OnRecall | None = None,
    ) -> None:
        def default_share(collection: ServedCollection, arm: c.Arm | None) -> float:
            return settings.recall_sample

        def ignore(collection: str, arm: c.Arm | None, value: float) -> None:
            pass

        self._recall = RecallMonitor(collections, shares or default_share, on_recall or ignore)
        self._recorder = TrafficRecorder(store, settings.record_share, settings.record_queries)

    def observe(self, event: RequestEvent) -> None:
        """Passes an event to all monitors, unless the server is overloaded.

        It takes a few microseconds, and never raises.
        """
        if leave_out("monitor"):
            return
        self._recall.observe(event)
        self._recorder.observe(event)

    def start(self) -> None:
        """Starts the background work of the monitors on the running loop."""
        for monitor in (self._recall, self._recorder):
            monitor.start()

    async def close(self) -> None:
        """Stops the monitors and writes recorded requests; snapshots must still be loaded."""
        await asyncio.gather(self._recall.close(), self._recorder.close())

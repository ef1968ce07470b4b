"""Collections for tests of monitors, and searches of them as events."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from prometheus_client import REGISTRY

from nearline import contract as c
from nearline.store.snapshot import Store
from retrieval.embedders.endpoints import Embedders
from retrieval.protocols.snapshot import read_current_snapshots
from retrieval.rollout.collections import ServedCollections
from retrieval.router.events import SearchEvent
from retrieval.search import executor
from retrieval.search.collection import ServedCollection
from retrieval.search.queries import prepare_queries
from retrieval.search.request_context import RequestContext
from retrieval.shards.local_provider import LocalShardProvider


@contextlib.asynccontextmanager
async def served_collections(root: Path) -> AsyncIterator[ServedCollections]:
    """Serves the current snapshots of a store, with all shards in this process."""
    shards = LocalShardProvider(Store(root), 2)
    collections = ServedCollections()
    try:
        for snapshot in read_current_snapshots(Store(root), ()):
            collections.serve(ServedCollection(snapshot, await shards.prepare(snapshot)))
        yield collections
    finally:
        await shards.close()


async def searched(
    served: ServedCollection,
    query: c.Query,
    options: c.SearchOptions = c.SearchOptions(),  # noqa: B008  frozen
    *,
    arm: c.Arm | None = None,
    embedder: c.Embedder | None = None,
) -> SearchEvent:
    """Searches like the service and returns the event for observers."""
    inquiry = RequestContext()
    embedders = Embedders({} if embedder is None else {"here": embedder})
    asking = await prepare_queries(served, embedders, [query], ["query"], options, inquiry)
    outcome = await executor.search(served, asking.batches[0], options, inquiry)
    hits, mark = outcome.lists[0], inquiry.watermark
    return SearchEvent(served, arm, query, options, asking.batches[0], hits, mark, "a-list")


def metric(name: str, **labels: str) -> float:
    """Returns the value of a metric; 0 without one."""
    return REGISTRY.get_sample_value(name, labels) or 0.0

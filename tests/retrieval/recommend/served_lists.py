"""A recommendation service over the snapshot of a store, in this process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

from nearline.store.snapshot import Store
from retrieval.behaviour.model import BehaviourModel, load_behaviour_model
from retrieval.cache.tiered_cache import TieredCache
from retrieval.protocols.snapshot import read_current_snapshots
from retrieval.recommend.cached_candidates import CandidateCache
from retrieval.recommend.policies import Policies, default_policies
from retrieval.recommend.service import RecommendationService
from retrieval.rollout.collections import ServedCollections
from retrieval.search.collection import ServedCollection
from retrieval.shards.local_provider import LocalShardProvider


@contextlib.asynccontextmanager
async def served_lists(
    store: Store,
    policies: Policies | None = None,
    known: BehaviourModel | None = None,
    *,
    local: bool = False,
    cached: bool = True,
    newest: Callable[[int], Sequence[str]] = lambda most: (),
    **parts: object,
) -> AsyncIterator[RecommendationService]:
    """Yields a service. known: A model other than that of the snapshot. parts: Of the service."""
    shards, collections = LocalShardProvider(store, 1), ServedCollections()
    cache = CandidateCache(TieredCache(None), {}) if cached else None
    try:
        (snapshot,) = read_current_snapshots(store, ())
        model = known or load_behaviour_model(store, snapshot, local=local)
        loaded = await shards.prepare(snapshot)
        collections.serve(ServedCollection(snapshot, loaded, model, newest=newest))
        chosen = policies or default_policies()
        yield RecommendationService(collections, chosen, cache=cache, **parts)  # type: ignore[arg-type]
    finally:
        if cache is not None:
            await cache.close()
        await shards.close()

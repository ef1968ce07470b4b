"""Computes the lists that everyone shares, for the caches."""

from __future__ import annotations

import asyncio
import time

from nearline import wire
from nearline.errors import ShardsUnavailable
from nearline.times import to_us
from retrieval.cache.cached_list import CachedList, ComputeList
from retrieval.recommend.candidate_pool import CandidatePool, CandidateQuery
from retrieval.recommend.policies import Policy
from retrieval.recommend.pool_filler import fill_ranked
from retrieval.recommend.similar_items import find_similar_items
from retrieval.recommend.strategies import RankingContext, strategy_of
from retrieval.recommend.user_profile import UserProfile
from retrieval.search.request_context import RequestContext

# Several requests may wait for one computation, so it does not depend on the deadline of the first.
_COMPUTE_S = 2.0


def list_computation(
    query: CandidateQuery, policy: Policy, item_id: str, depth: int
) -> ComputeList:
    """Returns a function that computes a list from behaviour, or else from vectors.

    Args:
        query: Which items match and which fields to read; its context holds the changes that the
            list must reflect.
        policy: The policy of the surface.
        item_id: Item that the list goes with; empty: none, which needs a behaviour model.
        depth: Items needed.
    """

    async def compute() -> CachedList | None:
        start, start_us = time.perf_counter(), time.time_ns() // 1_000
        deadline = asyncio.get_running_loop().time() + _COMPUTE_S
        context = RequestContext(deadline, query.context.min_watermark)
        own_query = query._replace(context=context)
        model, strategy = query.served.learned, strategy_of(policy)
        hidden = policy.blocked | {item_id}
        pool = CandidatePool(query.payload)
        ranked_for = RankingContext(
            [item_id] if item_id else [], UserProfile(), policy.seen.repeat, start_us
        )
        if model is not None and not strategy.needs_content(model, ranked_for):
            await fill_ranked(pool, own_query, model, strategy, ranked_for, hidden, depth)
        else:
            similar = await find_similar_items(own_query, [item_id], depth, hidden)
            if similar is None:
                return None
            for item, score in similar:
                pool.add(item, score)
        if context.failures:
            # An incomplete list must not be served for minutes.
            raise ShardsUnavailable("a shard does not answer, so the list is not cached")
        hits = [pool.hits[candidate.id] for candidate in pool.candidates]
        return CachedList(
            tuple(hit.id for hit in hits),
            tuple(map(wire.recommendation_to_bytes, hits)),
            computed_us=start_us,
            cost_s=time.perf_counter() - start,
            watermark=context.watermark,
            expires_us=to_us(pool.expires) if pool.expires else 0,
        )

    return compute

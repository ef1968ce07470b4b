"""Lists that are the same for everybody, computed for the caches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np

from nearline import wire
from nearline.errors import ShardsUnavailable
from nearline.times import to_us
from retrieval.behaviour.history import History
from retrieval.behaviour.model import BehaviourModel
from retrieval.cache.cached_list import CachedList, ComputeList
from retrieval.recommend.candidates import CandidatePool, CandidateQuery, allowed_mask
from retrieval.recommend.policies import Policy
from retrieval.recommend.similar_items import SimilarItems
from retrieval.recommend.strategies import rank_for_surface
from retrieval.recommend.user_profile import EMPTY_HISTORY
from retrieval.search.request_context import RequestContext

# Several may wait for a list: it has its own time, not that of who asked first.
_COMPUTE_S = 2.0


def list_computation(
    reading: CandidateQuery, policy: Policy, item: str, depth: int, similar: SimilarItems
) -> ComputeList:
    """Returns what computes a list, by behaviour or else by vectors.

    Args:
        reading: What is wanted of the items, and which; its inquiry says how new they must be.
        policy: Of the surface.
        item: That the list goes with; empty: none, so the snapshot has learned from interactions.
        depth: Items wanted.
    """
    learned = reading.served.learned

    async def compute() -> CachedList | None:
        began, began_us = time.perf_counter(), time.time_ns() // 1_000
        inquiry = RequestContext(
            asyncio.get_running_loop().time() + _COMPUTE_S, reading.inquiry.least
        )
        wanted = reading._replace(inquiry=inquiry)
        pool = CandidatePool(reading.payload)
        without = policy.blocked | {item}
        if learned is not None and (not item or is_trained(learned, item)):
            ranking = rank_for_surface(
                learned,
                policy,
                items_as_history(learned, [item] if item else []),
                EMPTY_HISTORY,
                allowed=await allowed_mask(wanted, learned, without),
                first=depth,
                now_us=began_us,
            )
            await pool.fill(wanted, learned.ids, ranking.blocks, depth)
        else:
            found = await similar.to(wanted, [item], depth, without)
            if found is None:
                return None
            for one, score in found:
                pool.add(one, score)
        if inquiry.failures:
            # Nobody shall be shown for minutes what is a part.
            raise ShardsUnavailable("a shard does not answer, so the list is not kept")
        hits = [pool.hits[one.id] for one in pool.candidates]
        ids = tuple(one.id for one in hits)
        spent_s = time.perf_counter() - began
        expires_us = to_us(pool.expires) if pool.expires else 0
        return CachedList(
            ids,
            tuple(map(wire.recommendation_to_bytes, hits)),
            began_us,
            spent_s,
            inquiry.watermark,
            expires_us,
        )

    return compute


def is_trained(learned: BehaviourModel, item: str) -> bool:
    """Returns whether the snapshot learned something of an item."""
    number = learned.number_of(item)
    return number is not None and bool(learned.trained[number])


def items_as_history(learned: BehaviourModel, items: Sequence[str]) -> History:
    """Returns items that a list is to go with as a history of one moment; only trained ones."""
    numbers = [learned.number_of(one) for one in items if is_trained(learned, one)]
    count = len(numbers)
    return History(
        np.array(numbers, np.int32), np.zeros(count, np.int64), np.ones(count, np.float32)
    )

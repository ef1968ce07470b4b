"""Fills a pool of candidates by the strategy of a surface, and by fallbacks if it has none.

The strategies themselves are in `strategies`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

from nearline.filters import Range, both
from nearline.times import MINUTE_US, from_us
from retrieval.protocols.candidates import NO_EVENTS
from retrieval.recommend.candidate_pool import CandidatePool, CandidateQuery
from retrieval.recommend.fresh_items import fresh_items
from retrieval.recommend.policies import Policy
from retrieval.recommend.ranking import POPULAR, ItemRanking, RankingQuery
from retrieval.recommend.similar_items import find_similar_items
from retrieval.recommend.strategies import RankingContext, Strategy, strategy_of
from retrieval.recommend.user_profile import UserProfile

# Sources of a list besides those that `ranking` names.
CONTENT = "content"
UNORDERED = "unordered"
# Items that are ordered before the rest; more than most lists need.
_FIRST_BLOCK = 64
# A tenth of a pool is for more new items than a policy needs, since quotas may refuse some.
_SPARE = 10
# Items changed last, among which those are sought that the snapshot does not have.
_CHANGED = 100


class PoolSource(NamedTuple):
    """What a pool was filled from: the source of a ranking, CONTENT or UNORDERED.

    is_live: Whether new interactions may change it.
    """

    name: str
    is_live: bool


async def fill_pool(
    pool: CandidatePool,
    query: CandidateQuery,
    strategy: Strategy,
    context: RankingContext,
    hidden: frozenset[str],
    depth: int,
) -> PoolSource:
    """Fills a pool from the best source that has candidates.

    Args:
        pool: An empty pool.
        hidden: Ids to leave out.
        depth: Candidates needed.
    Returns: The source.
    Raises: as `CandidatePool.read`.
    """
    is_live = query.served.trends is not None
    ranking = await rank(query, strategy, context, hidden, depth)
    if ranking is not None:
        await pool.fill(query, ranking.blocks(), depth)
        return PoolSource(ranking.source, ranking.is_live)
    examples = content_examples(context)
    if examples and (similar := await find_similar_items(query, examples, depth, hidden)):
        for item, score in similar:
            pool.add(item, score)
        return PoolSource(CONTENT, is_live)
    unknown = context._replace(item_ids=(), profile=UserProfile())
    ranking = await rank(query, strategy, unknown, hidden, depth)
    if ranking is not None:
        await pool.fill(query, ranking.blocks(), depth)
        return PoolSource(POPULAR, is_live)
    await pool.read(query, [(one, 0.0) for one in await fresh_items(query, depth, hidden)])
    return PoolSource(UNORDERED, is_live)


async def add_new(
    pool: CandidatePool,
    query: CandidateQuery,
    policy: Policy,
    context: RankingContext,
    hidden: frozenset[str],
    depth: int,
) -> None:
    """Puts new items into the last places of a pool that has fewer than the policy needs.

    Models know new items least, so these rarely are among the best. Those of the snapshot stand in
    the order of its models. Between them stand the items that changed since, the latest first.

    Args:
        pool: Filled with the same query, context, hidden items and depth.
    Raises: as `CandidatePool.read`.
    """
    fresh, served, filled = policy.fresh, query.served, pool.candidates
    if fresh is None or served.attribute_kinds.get(fresh.attribute) != "time":
        return
    new = [one for one in filled if fresh.is_new(one.attributes, context.now_us)]
    if len(new) >= fresh.places:
        return
    ids, most = {one.id for one in new}, min(fresh.places + depth // _SPARE, depth)
    first, last = filled[: depth - most], filled[depth - most :]
    pool.candidates = [*first, *(one for one in last if one.id in ids)]
    start = len(pool.candidates)
    # Filters of one minute are equal, so that shards evaluate them once.
    since_us = fresh.since_us(context.now_us) // MINUTE_US * MINUTE_US
    query = query._replace(filter=both(query.filter, Range(fresh.attribute, gte=from_us(since_us))))
    ranking = await rank(query, strategy_of(policy), context, hidden | ids, most)
    if ranking is not None:
        await pool.fill(query, ranking.blocks(), start + most)
    ranked = pool.candidates[start:]
    known = hidden | {one.id for one in pool.candidates}
    changed = [one for one in served.newest(_CHANGED) if one not in known]
    await pool.read(query, [(one, 0.0) for one in changed])
    pairs = zip_longest(ranked, pool.candidates[start + len(ranked) :])
    both_kinds = [one for pair in pairs for one in pair if one is not None]
    pool.candidates[start:] = both_kinds[:most]
    pool.lower_scores(start)
    found = {one.id for one in pool.candidates}
    pool.candidates += [one for one in filled if one.id not in found]
    del pool.candidates[depth:]


async def rank(
    query: CandidateQuery,
    strategy: Strategy,
    context: RankingContext,
    hidden: frozenset[str],
    depth: int,
) -> ItemRanking | None:
    """Ranks items by a strategy; returns None if neither models nor live interactions can.

    Raises: as `CandidatePool.read`.
    """
    profile = context.profile
    return await strategy.rank(
        RankingQuery(
            served=query.served,
            model=query.served.learned,
            context=query.context,
            depth=max(depth, _FIRST_BLOCK),
            filter=query.filter,
            hidden=hidden,
            history=profile.history if profile.is_known else NO_EVENTS,
            had=profile.history_ids if hidden >= profile.history_ids else frozenset(),
            segments=context.segments,
        ),
        context,
    )


def content_examples(context: RankingContext) -> Sequence[str]:
    """Returns the ids of the items that a list of CONTENT is similar to, most relevant first."""
    events = context.profile.events
    return context.item_ids or list(dict.fromkeys(event.item_id for event in events))

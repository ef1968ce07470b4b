"""Fills a pool of candidates by the strategy of a surface, and by fallbacks if it has none.

The strategies themselves are in `strategies`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from retrieval.behaviour.model import BehaviourModel
from retrieval.recommend.candidate_pool import CandidatePool, CandidateQuery, allowed_mask
from retrieval.recommend.ranking import POPULAR
from retrieval.recommend.similar_items import find_similar_items, list_items
from retrieval.recommend.strategies import RankingContext, Strategy

# Sources of a list besides those that `ranking` names.
CONTENT = "content"
UNORDERED = "unordered"
# Items that are ordered before the rest; more than most lists need.
_FIRST_BLOCK = 64


async def fill_pool(
    pool: CandidatePool,
    query: CandidateQuery,
    strategy: Strategy,
    context: RankingContext,
    hidden: frozenset[str],
    depth: int,
) -> str:
    """Fills a pool from the best source that has candidates.

    Args:
        pool: An empty pool.
        hidden: Ids to leave out.
        depth: Candidates needed.
    Returns: The source: of the ranking, CONTENT or UNORDERED.
    Raises: as `CandidatePool.read`.
    """
    model = query.served.learned
    if model is not None and not strategy.needs_content(model, context):
        return await fill_ranked(pool, query, model, strategy, context, hidden, depth)
    examples = content_examples(context)
    if examples and (similar := await find_similar_items(query, examples, depth, hidden)):
        for item, score in similar:
            pool.add(item, score)
        return CONTENT
    if model is not None:
        await fill_ranked(pool, query, model, strategy, context, hidden, depth)
        return POPULAR
    items = await list_items(query, depth + len(hidden))
    for item in islice((one for one in items if one.id not in hidden), depth):
        pool.add(item, 0.0)
    return UNORDERED


def content_examples(context: RankingContext) -> Sequence[str]:
    """Returns the ids of the items that a list of CONTENT is similar to, most relevant first."""
    events = context.profile.events
    return context.item_ids or list(dict.fromkeys(event.item_id for event in events))


async def fill_ranked(
    pool: CandidatePool,
    query: CandidateQuery,
    model: BehaviourModel,
    strategy: Strategy,
    context: RankingContext,
    hidden: frozenset[str],
    depth: int,
) -> str:
    """Fills a pool in the order of a strategy; returns the source of the ranking.

    Raises: as `CandidatePool.read`.
    """
    allowed = await allowed_mask(query, model, hidden)
    first = max(depth, _FIRST_BLOCK)
    ranking = strategy.rank(model, context, allowed, first)
    await pool.fill(query, model.ids, ranking.blocks, depth)
    return ranking.source

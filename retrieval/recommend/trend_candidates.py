"""Ranks items by interactions that the models of the snapshot do not know yet, or without any."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from dataclasses import replace

import numpy as np

from nearline.errors import ShardsUnavailable
from retrieval.behaviour import generator_names as names
from retrieval.behaviour.reasons import MAX_REASONS
from retrieval.recommend.candidate_pool import CandidateQuery
from retrieval.recommend.fresh_items import fresh_items
from retrieval.recommend.policies import NO_PAYLOAD
from retrieval.recommend.ranking import (
    HISTORY,
    ITEMS,
    POPULAR,
    Block,
    ItemRanking,
    RankingQuery,
    rank_for_everyone,
)
from retrieval.recommend.similar_items import find_similar_items
from retrieval.users.records import UserEvent

# Newest items of a user that count; the one r places further back counts exp(-r / 5).
_MOST_EVENTS, _RECENCY = 20, 5.0


async def rank_popular(query: RankingQuery, generator: str, source: str) -> ItemRanking | None:
    """Ranks items the same for everyone: by what the models counted, and what came since then.

    The trained counts fade until the newest interaction, as they would have in training. Items
    behind the best thousand of training start from 0. New items follow those that somebody had.

    Args:
        generator: POPULAR or TRENDING; others are ranked by the model alone.
    Returns: None if there are no interactions.
    """
    trends = query.served.trends
    if trends is None or generator not in (names.POPULAR, names.TRENDING):
        return _then_fresh(query, await rank_for_everyone(query, generator, source))
    lists = await trends.read()
    is_trending = generator == names.TRENDING
    live = lists.trending if is_trending else lists.popular
    fading = lists.fading(lists.trending_days if is_trending else lists.popular_days)
    deep = replace(query, depth=max(query.depth, len(live.ids)))
    trained = _then_fresh(deep, await rank_for_everyone(deep, generator, source))
    # Live lists continue the counts of the current snapshot; a canary may know what they count.
    is_other = trained is not None and lists.trained_us != query.served.trained_us
    if not live.ids or is_other:
        return None if trained is None else trained._replace(is_live=True)
    scores: dict[str, float] = {}
    if trained is not None:
        trained_scores = (trained.first.scores * fading).tolist()
        scores = dict(zip(trained.first.ids, trained_scores, strict=True))
    for item_id, score in zip(live.ids, live.scores, strict=True):
        if item_id not in query.hidden:
            scores[item_id] = scores.get(item_id, 0.0) + score
    first = _ordered(scores)
    following = _fresh(query, scores.keys()) if trained is None else trained.following
    reason = "trending" if is_trending else "popular"
    return ItemRanking(
        source,
        first,
        first.ids,
        _without(frozenset(scores), following),
        is_live=True,
        reasons=dict.fromkeys(live.ids, (reason,)),
    )


async def rank_co_visited(query: RankingQuery, item_ids: Sequence[str]) -> ItemRanking | None:
    """Ranks items by what the visitors of some items visited, too; similar items follow.

    Returns: None if no visitors of the items have anything else in common.
    """
    first, reasons = await _co_visited(query, dict.fromkeys(item_ids, 1.0))
    if not first.ids:
        return None
    following = _without(frozenset(first.ids), _similar(query, item_ids))
    return ItemRanking(ITEMS, first, first.ids, following, is_live=True, reasons=reasons)


async def rank_by_visits(query: RankingQuery, events: Sequence[UserEvent]) -> ItemRanking | None:
    """Ranks items by what the visitors of a user's items visited, too; popular items follow.

    Args:
        events: Of the user, newest first.
    Returns: As `rank_co_visited`.
    """
    newest = list(dict.fromkeys(one.item_id for one in events))[:_MOST_EVENTS]
    weights = {one: math.exp(-place / _RECENCY) for place, one in enumerate(newest)}
    first, reasons = await _co_visited(query, weights)
    trends = query.served.trends
    if trends is None or not first.ids:
        return None
    reasons = dict.fromkeys(trends.lists.popular.ids, ("popular",)) | dict(reasons)
    following = _without(frozenset(first.ids), _popular(query))
    return ItemRanking(HISTORY, first, first.ids, following, is_live=True, reasons=reasons)


async def _co_visited(
    query: RankingQuery, weights: Mapping[str, float]
) -> tuple[Block, Mapping[str, Sequence[str]]]:
    """Returns what goes with weighted items, and the items that each of them goes with."""
    shares: dict[str, dict[str, float]] = {}
    trends = query.served.trends
    if trends is not None and weights:
        related = await trends.related(list(weights))
        for (item_id, weight), found in zip(weights.items(), related, strict=True):
            for other, score in zip(found.ids, found.scores, strict=True):
                if other not in query.hidden:
                    shares.setdefault(other, {})[item_id] = weight * score
    scores = {other: sum(by_item.values()) for other, by_item in shares.items()}
    reasons = {
        other: [f"because:{one}" for one, _ in _best_first(by_item)[:MAX_REASONS]]
        for other, by_item in shares.items()
    }
    return _ordered(scores), reasons


def _best_first(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(scores.items(), key=lambda one: (-one[1], one[0]))


def _ordered(scores: Mapping[str, float]) -> Block:
    best = _best_first(scores)
    return Block([one for one, _ in best], np.array([score for _, score in best], np.float32))


async def _popular(query: RankingQuery) -> AsyncIterator[Block]:
    ranking = await rank_popular(query, names.POPULAR, POPULAR)
    if ranking is not None:
        shift = ranking.first.scores.max(initial=0)
        async for ids, scores in ranking.blocks():
            # Below the scores before, which are positive.
            yield Block(ids, scores - shift)


async def _similar(query: RankingQuery, item_ids: Sequence[str]) -> AsyncIterator[Block]:
    bare = CandidateQuery(query.served, NO_PAYLOAD, query.filter, query.context)
    found = await find_similar_items(bare, item_ids, query.depth, query.hidden) or ()
    scores = np.array([score for _, score in found], np.float32)
    yield Block([one.id for one, _ in found], scores - scores.max(initial=0))


async def _fresh(query: RankingQuery, listed: Set[str]) -> AsyncIterator[Block]:
    bare = CandidateQuery(query.served, NO_PAYLOAD, query.filter, query.context)
    ids = await fresh_items(bare, query.depth, query.hidden | listed)
    yield Block(ids, np.zeros(len(ids), np.float32))


def _then_fresh(query: RankingQuery, ranking: ItemRanking | None) -> ItemRanking | None:
    """Returns a ranking that continues with the items without interactions, so it has all."""

    async def following(ranking: ItemRanking) -> AsyncIterator[Block]:
        listed, least = set(ranking.first.ids), 0.0
        async for ids, scores in ranking.following:
            listed.update(ids)
            least = min(least, float(scores.min(initial=0)))
            yield Block(ids, scores)
        # A shard that is away must not end a list that others can make.
        with contextlib.suppress(ShardsUnavailable):
            async for ids, scores in _fresh(query, listed):
                yield Block(ids, scores + np.float32(least))

    return None if ranking is None else ranking._replace(following=following(ranking))


async def _without(listed: frozenset[str], blocks: AsyncIterator[Block]) -> AsyncIterator[Block]:
    """Yields blocks without the items that are listed already."""
    async for ids, scores in blocks:
        kept = [at for at, one in enumerate(ids) if one not in listed]
        yield Block([ids[at] for at in kept], scores[kept])

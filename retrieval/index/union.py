"""Merges the results of the two segments of a shard; each document is in exactly one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from nearline.contract import Scalar, SearchMode
from retrieval.protocols.shard import (
    FieldCounts,
    LexicalColumns,
    ShardCounts,
    ShardFilterPlan,
    ShardHits,
    ShardOptions,
    add_costs,
)

_T = TypeVar("_T")


def join_hits(base: ShardHits, live: ShardHits, options: ShardOptions) -> ShardHits:
    """Merges the hits of one query.

    Args:
        base: Hits of the snapshot segment.
        live: Hits of the live segment.
        options: Options of both searches.
    Returns: At most k hits, or the best hit of each of at most k groups. For hybrid searches, all
        candidates: the router selects among them.
    """
    plan, cost, fallback = _join_plans(base.plan, live.plan), base.cost, base.fallback
    if cost is not None and live.cost is not None:
        # The live segment is small, and never on a GPU.
        cost = replace(add_costs(cost, live.cost), gpu=cost.gpu)
    merged = _merge_hits(base, live, options)
    merged.plan, merged.cost, merged.fallback = plan, cost or live.cost, fallback
    merged.terms = base.terms or live.terms
    return merged


def join_counts(base: ShardCounts, live: ShardCounts) -> ShardCounts:
    """Adds the counts of items, and of the values of the same fields."""
    fields = [
        FieldCounts(Counter(one.counts) + Counter(other.counts), one.missing + other.missing)
        for one, other in zip(base.fields, live.fields, strict=True)
    ]
    return ShardCounts(base.count + live.count, fields)


def _merge_hits(base: ShardHits, live: ShardHits, options: ShardOptions) -> ShardHits:
    if not live.ids:
        return base
    if not base.ids:
        return live
    if options.mode is SearchMode.HYBRID:
        return _concatenate(base, live)
    # The common case: most live documents are far from most queries.
    if len(base.ids) >= options.k and live.scores[0] < base.scores[-1]:
        return base
    both = _concatenate(base, live)
    scores, ids, chunks = both.scores, both.ids, both.chunks
    order = sorted(range(len(ids)), key=lambda at: (-scores[at], ids[at], chunks[at]))
    if options.grouping is not None and not options.boosts:
        order = _firsts(order, both.groups)
    return _take_hits(both, order[: options.k])


def _concatenate(base: ShardHits, live: ShardHits) -> ShardHits:
    lexical: LexicalColumns | None = None
    if base.lexical is not None and live.lexical is not None:
        lexical = LexicalColumns(
            [*base.lexical.scores, *live.lexical.scores],
            [*base.lexical.chunks, *live.lexical.chunks],
            [*base.lexical.starts, *live.lexical.starts],
            [*base.lexical.ends, *live.lexical.ends],
            [*base.lexical.titles, *live.lexical.titles],
            base.lexical.title_score,
        )
    return ShardHits(
        [*base.ids, *live.ids],
        [*base.scores, *live.scores],
        [*base.chunks, *live.chunks],
        [*base.starts, *live.starts],
        [*base.ends, *live.ends],
        [*base.payloads, *live.payloads],
        lexical,
        [*base.groups, *live.groups],
        boosts=[*base.boosts, *live.boosts],
        title_scores=[*base.title_scores, *live.title_scores],
    )


def _firsts(order: Sequence[int], groups: Sequence[Scalar]) -> list[int]:
    seen: dict[Scalar, int] = {}
    for at in order:
        seen.setdefault(groups[at], at)
    return list(seen.values())


def _take_hits(hits: ShardHits, places: Sequence[int]) -> ShardHits:
    return ShardHits(
        _take(hits.ids, places),
        _take(hits.scores, places),
        _take(hits.chunks, places),
        _take(hits.starts, places),
        _take(hits.ends, places),
        _take(hits.payloads, places) if hits.payloads else (),
        None,
        _take(hits.groups, places) if hits.groups else (),
        boosts=_take(hits.boosts, places) if hits.boosts else (),
        title_scores=_take(hits.title_scores, places) if hits.title_scores else (),
    )


def _take(column: Sequence[_T], places: Sequence[int]) -> list[_T]:
    return [column[at] for at in places]


def _join_plans(
    base: ShardFilterPlan | None, live: ShardFilterPlan | None
) -> ShardFilterPlan | None:
    """Combines both plans into one, which names the strategy of the snapshot segment."""
    if base is None or live is None:
        return base or live
    return ShardFilterPlan(
        base.strategy if base.matches else live.strategy,
        base.matches + live.matches,
        base.chunks + live.chunks,
        base.ef_search,
        f"{base.reason}; of live changes, {live.matches:,} of {live.chunks:,} match",
    )

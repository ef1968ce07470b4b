"""One search over all shards of a collection: asked, merged or fused, chosen, filled."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from nearline import contract as c
from nearline.filters import All, Equals
from retrieval.protocols import metrics
from retrieval.protocols.shard import ShardHits, ShardOptions, ShardQueries
from retrieval.search import fanout, payloads
from retrieval.search.collection import ServedCollection
from retrieval.search.diversity import diverse_order, pool_size
from retrieval.search.hybrid import fuse_hits
from retrieval.search.merge import merge_hits
from retrieval.search.queries import QueryBatch
from retrieval.search.request_context import RequestContext

_NONE: frozenset[str] = frozenset()
_NO_PAYLOAD: frozenset[c.PayloadField] = frozenset()
_VECTOR = frozenset({c.PayloadField.VECTOR})
_RankedHits = list[tuple[int, c.Hit]]


class BatchResult(NamedTuple):
    """What came of the queries of one mode: for each, in order, a list, plans, and its words."""

    lists: list[list[c.Hit]]
    plans: list[list[c.FilterPlan]]
    terms: list[Sequence[c.Term]]


class _Round(NamedTuple):
    """One fan-out: by query the best hits with the numbers of their shards, plans and words."""

    ranked: list[_RankedHits]
    plans: list[list[c.FilterPlan]]
    terms: list[Sequence[c.Term]]


async def search(
    served: ServedCollection, asked: QueryBatch, options: c.SearchOptions, inquiry: RequestContext
) -> BatchResult:
    """Answers queries of one mode.

    Args:
        served: The collection.
        asked: The queries.
        options: Checked.
        inquiry: Told of shards that do not answer, and how far live changes are in the others.
    Raises: what the shards raise, and see `fanout.gather`.
    """
    wanted = options.k
    if options.diversity:
        wanted = min(pool_size(options.k), c.MAX_K)
    # The examples of a query would stand in its answer: ask for as many more, then drop them.
    ask = wanted + max(map(len, asked.excluded.values()), default=0)
    hybrid = asked.mode is c.SearchMode.HYBRID
    # Hybrid hits are known only after all shards have answered, diverse ones after a choice.
    later = hybrid or bool(options.diversity)
    payload = _NO_PAYLOAD if later else options.payload
    while True:
        found = await _round(served, asked, options, ask, payload, inquiry)
        short = False
        lists = []
        for number, ranked in enumerate(found.ranked):
            excluded = asked.excluded.get(number, _NONE)
            kept = [one for one in ranked if one[1].id not in excluded] if excluded else ranked
            # The groups of a hybrid search come whole, and counted.
            lists.append(kept if hybrid and options.grouping else kept[:wanted])
            # Only chunks: several of them may belong to one example.
            short |= bool(excluded) and len(kept) < wanted and len(ranked) >= ask
        if not short:
            break
        ask *= 4
    if options.min_score is not None:
        lists = [[one for one in each if one[1].score >= options.min_score] for each in lists]
    if options.diversity:
        lists = await _diversify(served, lists, options, inquiry)
    if later and options.payload:
        await payloads.fill_payloads(served, lists, options, inquiry)
    if options.grouping is not None and options.grouping.size > 1:
        lists = await _complete_groups(served, asked, options, lists, inquiry)
    return BatchResult([[hit for _, hit in each] for each in lists], found.plans, found.terms)


async def _round(
    served: ServedCollection,
    asked: QueryBatch,
    options: c.SearchOptions,
    ask: int,
    payload: frozenset[c.PayloadField],
    inquiry: RequestContext,
) -> _Round:
    hybrid = asked.mode is c.SearchMode.HYBRID
    candidates = max(served.fusion.candidates, ask)
    shard_options = ShardOptions(
        candidates if hybrid else ask,
        asked.mode,
        options.level,
        payload,
        options.ef_search,
        options.nprobe,
        options.exact,
        options.filter,
        options.grouping,
        options.explain,
        inquiry.least,
    )
    results = await _fan_out(served, asked.queries, shard_options, options, inquiry)
    ranked: list[_RankedHits] = []
    plans: list[list[c.FilterPlan]] = []
    terms: list[Sequence[c.Term]] = []
    for number in range(asked.queries.count):
        parts = [(shard, hits[number]) for shard, hits in results.items()]
        # Every shard has its own best of each group: look at all of them, then keep one of each.
        most = ask * len(parts) if options.grouping else ask
        if hybrid:
            weight = options.dense_weight
            one = fuse_hits(
                parts,
                2 * candidates if options.grouping else ask,
                candidates=candidates,
                dense_weight=served.fusion.dense_weight if weight is None else weight,
                floor=served.fusion.floor,
                explain=options.explain,
            )
        else:
            one = merge_hits(parts, most)
            if options.explain:
                _explain(one, asked.mode)
        if options.grouping:
            one = _best_of_groups(one, ask, options.grouping.size if hybrid else 1)
        ranked.append(one)
        # Every shard knows the words of the whole collection.
        terms.append(served.terms(next((hits.terms for _, hits in parts if hits.terms), ())))
        plans.append(
            [
                c.FilterPlan(shard=shard, **hits.plan._asdict())
                for shard, hits in parts
                if hits.plan is not None and options.explain
            ]
        )
    return _Round(ranked, plans, terms)


async def _fan_out(
    served: ServedCollection,
    queries: ShardQueries,
    shard_options: ShardOptions,
    options: c.SearchOptions,
    inquiry: RequestContext,
) -> dict[int, Sequence[ShardHits]]:
    start = time.perf_counter()
    calls = {
        number: shard.search(served.snapshot_id, queries, shard_options, inquiry.deadline)
        for number, shard in enumerate(served.shards)
    }
    answers = await fanout.gather(
        calls, inquiry.deadline, collection=served.name, full=options.require_full_coverage
    )
    served.observe_search(time.perf_counter() - start)
    for number, error in answers.failures.items():
        inquiry.failures[number] = error
        metrics.shard_failures.labels(served.name, str(number), error.reason).inc()
    for number, results in answers.results.items():
        if results[0].applied is not None:
            inquiry.heard(number, [hits.applied for hits in results])
    return answers.results


def _explain(ranked: _RankedHits, mode: c.SearchMode) -> None:
    lexical = mode is c.SearchMode.LEXICAL
    for place, (shard, hit) in enumerate(ranked, start=1):
        hit.explanation = c.Explanation(
            dense_score=None if lexical else hit.score,
            lexical_score=hit.score if lexical else None,
            shard=shard,
            dense_rank=None if lexical else place,
            lexical_rank=place if lexical else None,
        )


def _best_of_groups(ranked: _RankedHits, k: int, size: int) -> _RankedHits:
    """Keeps the best hits, up to `size`, of each of the k best groups; group after group."""
    counts: dict[c.Scalar, int] = {}
    kept: dict[c.Scalar, _RankedHits] = {}
    for one in ranked:
        group = one[1].group
        if group is None or (group not in counts and len(counts) == k):
            continue
        counts[group] = counts.get(group, 0) + 1
        if counts[group] <= size:
            kept.setdefault(group, []).append(one)
    return [one for hits in kept.values() for one in hits]


async def _complete_groups(
    served: ServedCollection,
    asked: QueryBatch,
    options: c.SearchOptions,
    lists: list[_RankedHits],
    inquiry: RequestContext,
) -> list[_RankedHits]:
    """Fills groups: by a search within each, since its next hits may lie in any shard."""
    grouping = options.grouping
    assert grouping is not None
    if asked.mode is c.SearchMode.HYBRID:
        # Fused scores mean something among the candidates of one search only.
        return lists
    alone = replace(options, grouping=None)

    async def group_of(number: int, value: c.Scalar) -> _RankedHits:
        assert value is not None
        inside = Equals(grouping.field, value)
        narrowed = replace(
            alone, filter=inside if options.filter is None else All(options.filter, inside)
        )
        one = QueryBatch(asked.mode, [0], asked.queries.part(number, number + 1))
        excluded = asked.excluded.get(number, _NONE)
        ask = grouping.size + len(excluded)
        found = await _round(served, one, narrowed, ask, options.payload, inquiry)
        kept = [hit for hit in found.ranked[0] if hit[1].id not in excluded]
        for _, hit in kept:
            hit.group = value
        least = -math.inf if options.min_score is None else options.min_score
        return [hit for hit in kept[: grouping.size] if hit[1].score >= least]

    groups = [(number, hit.group) for number, ranked in enumerate(lists) for _, hit in ranked]
    filled = await asyncio.gather(*(group_of(*one) for one in groups))
    whole: list[_RankedHits] = [[] for _ in lists]
    for (number, _), hits in zip(groups, filled, strict=True):
        whole[number] += hits
    return whole


async def _diversify(
    served: ServedCollection,
    lists: list[_RankedHits],
    options: c.SearchOptions,
    inquiry: RequestContext,
) -> list[_RankedHits]:
    """Chooses k of each pool; without the hits that gave no vector any more."""
    pools = [[(shard, hit) for shard, hit in each] for each in lists]
    await payloads.fill_payloads(served, pools, replace(options, payload=_VECTOR), inquiry)
    chosen = []
    for pool in pools:
        vectors = np.array([hit.vector for _, hit in pool], np.float32)
        scores = np.array([hit.score for _, hit in pool], np.float64)
        order = diverse_order(scores, vectors, options.k, options.diversity)
        picked = [pool[place] for place in order]
        if c.PayloadField.VECTOR not in options.payload:
            for _, hit in picked:
                hit.vector = None
        chosen.append(picked)
    return chosen

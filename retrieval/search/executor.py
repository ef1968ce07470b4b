"""Executes a search: fans out to all shards, merges or fuses their hits, and fills payloads."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

import numpy as np

from nearline import contract as c
from nearline.admission import leave_out
from nearline.errors import first_of
from nearline.filters import Equals, both
from nearline.tracing.spans import note, stage
from retrieval.embedders.endpoints import Embedders
from retrieval.protocols import metrics
from retrieval.protocols.compute_threads import Stopped, run_stoppable
from retrieval.protocols.shard import ShardHits, ShardOptions, ShardQueries
from retrieval.search import fanout, payloads, second_stage
from retrieval.search.boosts import boosted_hits, with_origins
from retrieval.search.collection import ServedCollection
from retrieval.search.diversity import diverse_depth, diverse_order, pool_size
from retrieval.search.fusion import fuse_hits
from retrieval.search.merge import merge_hits
from retrieval.search.personal import CANDIDATES, Taste, give_reasons, order_by_taste
from retrieval.search.queries import QueryBatch
from retrieval.search.request_context import RequestContext

_NONE: frozenset[str] = frozenset()
_NO_PAYLOAD: frozenset[c.PayloadField] = frozenset()
_VECTOR = frozenset({c.PayloadField.VECTOR})
# Vectors that a request reads and holds at once to compare them.
_VECTORS_AT_ONCE = 8_192
# Searches that a request runs at once to fill its groups.
_GROUPS_AT_ONCE = 16
# Hits that are merged in one turn of the event loop, about 10 ms.
_HITS_PER_TURN = 4_096
# Hits with the numbers of their shards, best first.
_RankedHits = list[tuple[int, c.Hit]]


class BatchResult(NamedTuple):
    """For each query of a batch, in order: its hits, filter plans and words."""

    lists: list[list[c.Hit]]
    plans: list[list[c.FilterPlan]]
    terms: list[Sequence[c.Term]]


class _Round(NamedTuple):
    """The result of one fan-out, for each query: its best hits, filter plans and words."""

    ranked: list[_RankedHits]
    plans: list[list[c.FilterPlan]]
    terms: list[Sequence[c.Term]]


async def search(
    collection: ServedCollection,
    batch: QueryBatch,
    options: c.SearchOptions,
    context: RequestContext,
    *,
    request_queries: int = 0,
    embedders: Embedders | None = None,
    taste: Taste | None = None,
) -> BatchResult:
    """Answers queries of one mode.

    Args:
        collection: Collection to search.
        batch: The queries.
        options: Validated options.
        context: Records failed shards and the progress of live changes in the others.
        request_queries: Number of queries of the whole request, which share the limits of its cost;
            0 if it has this batch alone.
        embedders: Services that can run the reranker of the snapshot. Optional.
        taste: Of the user, for a batch of one query. Optional; None: the search is not personal.
    Raises: Errors of the shards; see `fanout.gather`.
    """
    options = _reduced(options, batch.mode, context)
    if batch.condition is not None:
        options = replace(options, filter=both(options.filter, batch.condition))
    if options.boosts:
        origins = with_origins(options.boosts, collection.attribute_kinds, datetime.now(UTC))
        options = replace(options, boosts=origins)
    wanted = options.k
    depth = diverse_depth(options.k, request_queries or batch.queries.count)
    if options.diversity:
        wanted = max(wanted, pool_size(depth))
        if options.boosts:
            wanted = min(wanted, c.MAX_BOOSTED)
    most_read = 0
    if embedders is not None:
        queries = request_queries or batch.queries.count
        most_read = second_stage.hits_to_read(collection, batch, options, queries)
        wanted = max(wanted, most_read)
    if taste is not None:
        wanted = max(wanted, CANDIDATES)
    # The examples of a query are among its best hits: request that many more, then drop them.
    shard_k = wanted + _most_excluded(batch)
    hybrid = batch.mode is c.SearchMode.HYBRID
    # Of candidates, shards have many more than the answer; diverse hits are known only after the
    # selection, and only the hits of the answer are highlighted.
    candidates = hybrid or bool(options.boosts)
    fill_later = candidates or bool(options.diversity or most_read or options.highlight or taste)
    payload = _NO_PAYLOAD if fill_later else options.payload
    while True:
        found = await _round(collection, batch, options, shard_k, payload, context)
        short = False
        lists = []
        for number, ranked in enumerate(found.ranked):
            excluded = batch.excluded.get(number, _NONE)
            kept = [one for one in ranked if one[1].id not in excluded] if excluded else ranked
            if candidates and options.grouping:
                # Of boosted hits, examples are dropped before groups are made.
                lists.append(_best_of_groups(kept, wanted, options.grouping.size))
                continue
            lists.append(kept[:wanted])
            # This happens only with chunks, several of which may belong to one example.
            short |= bool(excluded) and len(kept) < wanted and len(ranked) >= shard_k
        short = short and not options.boosts
        more = min(4 * shard_k, c.MAX_HITS // batch.queries.count)
        if not short or more <= shard_k:
            break
        shard_k = more
    if options.min_score is not None:
        lists = [[one for one in hits if one[1].score >= options.min_score] for hits in lists]
    if embedders is not None and most_read:
        lists = await second_stage.rerank(
            collection, batch, lists, most_read, embedders, options, context
        )
    risen: frozenset[str] = frozenset()
    if taste is not None:
        lists[0], risen = await order_by_taste(collection, lists[0], taste, context)
    if options.diversity:
        lists = await _diversify(collection, lists, options, depth, context)
    elif most_read or taste is not None:
        lists = [ranked[: options.k] for ranked in lists]
    if options.grouping is not None and options.grouping.size > 1:
        in_groups = replace(options, payload=payload)
        lists = await _complete_groups(collection, batch, in_groups, lists, context)
    explaining = None
    if taste is not None and risen and options.explain:
        reasons = give_reasons(collection, lists[0], risen, taste, context)
        explaining = asyncio.create_task(reasons)
    if fill_later and (options.payload or options.highlight is not None):
        await payloads.fill_payloads(collection, lists, options, context, batch.texts)
    if explaining is not None:
        await explaining
    return BatchResult([[hit for _, hit in hits] for hits in lists], found.plans, found.terms)


def _reduced(
    options: c.SearchOptions, mode: c.SearchMode, context: RequestContext
) -> c.SearchOptions:
    """Returns the options without what takes further rounds of calls, if the server is overloaded.

    context: Records what is left out.
    """
    left_out = []
    if options.diversity and leave_out("diversity"):
        options = replace(options, diversity=0.0)
        left_out.append("hits are in the order of their scores, not diversified")
    grouping = options.grouping
    apart = mode is not c.SearchMode.HYBRID and not options.boosts
    if grouping is not None and grouping.size > 1 and apart:
        if leave_out("groups"):
            options = replace(options, grouping=replace(grouping, size=1))
            left_out.append("each group has its best hit only")
    if left_out:
        context.reduced = f"the server is overloaded: {'; '.join(left_out)}"
    return options


def _most_excluded(batch: QueryBatch) -> int:
    return max(map(len, batch.excluded.values()), default=0)


async def _round(
    collection: ServedCollection,
    batch: QueryBatch,
    options: c.SearchOptions,
    k: int,
    payload: frozenset[c.PayloadField],
    context: RequestContext,
) -> _Round:
    hybrid, boosts = batch.mode is c.SearchMode.HYBRID, options.boosts
    candidates = max(k, collection.fusion.candidates if hybrid else 0)
    if boosts:
        # Whatever k is, so that each page has the same candidates.
        candidates = max(candidates, c.MAX_BOOSTED + _most_excluded(batch))
    shard_options = ShardOptions(
        candidates,
        batch.mode,
        options.level,
        payload,
        options.ef_search,
        options.nprobe,
        options.exact,
        options.filter,
        options.grouping,
        options.explain,
        context.min_watermark,
        boosts,
    )
    with stage("fan-out"):
        note({"shards": len(collection.shards), "candidates": candidates})
        results = await _fan_out(collection, batch.queries, shard_options, options, context)
    with stage("merge"):
        return await _merged(collection, batch, options, k, candidates, results)


async def _merged(
    collection: ServedCollection,
    batch: QueryBatch,
    options: c.SearchOptions,
    k: int,
    candidates: int,
    results: Mapping[int, Sequence[ShardHits]],
) -> _Round:
    """Merges or fuses what the shards found, by shard number."""
    hybrid, boosts = batch.mode is c.SearchMode.HYBRID, options.boosts
    ranked: list[_RankedHits] = []
    plans: list[list[c.FilterPlan]] = []
    terms: list[Sequence[c.Term]] = []
    turn = max(1, _HITS_PER_TURN // candidates)
    for number in range(batch.queries.count):
        if number and number % turn == 0:
            await asyncio.sleep(0)
        parts = [(shard, hits[number]) for shard, hits in results.items()]
        if hybrid:
            weight = options.dense_weight
            hits = fuse_hits(
                parts,
                2 * candidates if options.grouping else k,
                candidates=candidates,
                dense_weight=collection.fusion.dense_weight if weight is None else weight,
                floor=collection.fusion.floor,
                explain=options.explain,
                boosts=boosts,
            )
        elif boosts:
            hits = boosted_hits(
                parts,
                candidates if options.grouping else k,
                candidates,
                boosts,
                lexical=batch.mode is c.SearchMode.LEXICAL,
                explain=options.explain,
            )
        else:
            # Each shard has its own best hit of each group: merge all, then keep one per group.
            hits = merge_hits(parts, k * len(parts) if options.grouping else k)
            if options.explain:
                _explain(hits, batch.mode)
        if options.grouping and not boosts:
            hits = _best_of_groups(hits, k, options.grouping.size if hybrid else 1)
        ranked.append(hits)
        # Every shard counts the words of the whole collection.
        terms.append(collection.terms(next((hits.terms for _, hits in parts if hits.terms), ())))
        plans.append(
            [
                c.FilterPlan(shard=shard, **hits.plan._asdict())
                for shard, hits in parts
                if hits.plan is not None and options.explain
            ]
        )
    return _Round(ranked, plans, terms)


async def _fan_out(
    collection: ServedCollection,
    queries: ShardQueries,
    shard_options: ShardOptions,
    options: c.SearchOptions,
    context: RequestContext,
) -> dict[int, Sequence[ShardHits]]:
    start = time.perf_counter()
    calls = {
        number: shard.search(collection.snapshot_id, queries, shard_options, context.deadline)
        for number, shard in enumerate(collection.shards)
    }
    answers = await fanout.gather(
        calls, context.deadline, collection=collection.name, full=options.require_full_coverage
    )
    collection.observe_search(time.perf_counter() - start)
    for number, error in answers.failures.items():
        context.failures[number] = error
        metrics.shard_failures.labels(collection.name, str(number), error.reason).inc()
    for number, results in answers.results.items():
        context.record_hits(number, results)
        if fallbacks := sum(bool(hits.fallback) for hits in results):
            metrics.gpu_fallbacks.labels(collection.name, str(number)).inc(fallbacks)
    return answers.results


def _explain(ranked: _RankedHits, mode: c.SearchMode) -> None:
    lexical = mode is c.SearchMode.LEXICAL
    for rank, (shard, hit) in enumerate(ranked, start=1):
        hit.explanation = c.Explanation(
            dense_score=None if lexical else hit.score,
            lexical_score=hit.score if lexical else None,
            shard=shard,
            dense_rank=None if lexical else rank,
            lexical_rank=rank if lexical else None,
        )


def _best_of_groups(ranked: _RankedHits, k: int, size: int) -> _RankedHits:
    """Returns up to `size` of the best hits of each of the k best groups, group after group."""
    groups: dict[c.Scalar, _RankedHits] = {}
    for entry in ranked:
        group = entry[1].group
        if group is None or (group not in groups and len(groups) == k):
            continue
        members = groups.setdefault(group, [])
        if len(members) < size:
            members.append(entry)
    return [entry for members in groups.values() for entry in members]


async def _complete_groups(
    collection: ServedCollection,
    batch: QueryBatch,
    options: c.SearchOptions,
    lists: list[_RankedHits],
    context: RequestContext,
) -> list[_RankedHits]:
    """Fills each group with a separate search, since its next hits may lie in any shard.

    A few searches run at a time, so that other requests need not wait for all of them.
    """
    grouping = options.grouping
    assert grouping is not None
    if batch.mode is c.SearchMode.HYBRID or options.boosts:
        # Fused scores are comparable only among the candidates of one search, and only those are
        # boosted.
        return lists
    ungrouped = replace(options, grouping=None)

    async def group_of(number: int, value: c.Scalar) -> _RankedHits:
        assert value is not None
        in_group = Equals(grouping.field, value)
        filtered = replace(ungrouped, filter=both(options.filter, in_group))
        query = QueryBatch(batch.mode, [0], batch.queries.part(number, number + 1))
        excluded = batch.excluded.get(number, _NONE)
        k = grouping.size + len(excluded)
        found = await _round(collection, query, filtered, k, options.payload, context)
        kept = [entry for entry in found.ranked[0] if entry[1].id not in excluded]
        for _, hit in kept:
            hit.group = value
        least = -math.inf if options.min_score is None else options.min_score
        return [entry for entry in kept[: grouping.size] if entry[1].score >= least]

    groups = [(number, hit.group) for number, ranked in enumerate(lists) for _, hit in ranked]
    filled: list[_RankedHits] = [[] for _ in groups]
    waiting = iter(enumerate(groups))

    async def fill_waiting() -> None:
        for place, group in waiting:
            filled[place] = await group_of(*group)

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(_GROUPS_AT_ONCE, len(groups))):
                tasks.create_task(fill_waiting())
    except ExceptionGroup as errors:
        raise first_of(errors) from None
    complete: list[_RankedHits] = [[] for _ in lists]
    for (number, _), hits in zip(groups, filled, strict=True):
        complete[number] += hits
    return complete


async def _diversify(
    collection: ServedCollection,
    lists: list[_RankedHits],
    options: c.SearchOptions,
    depth: int,
    context: RequestContext,
) -> list[_RankedHits]:
    """Selects `depth` diverse hits of each list, then adds the best others until there are k.

    Hits whose vector can no longer be read are omitted.
    """
    selected: list[_RankedHits] = []
    pool = pool_size(depth)
    step = max(1, _VECTORS_AT_ONCE // pool)
    vectors = replace(options, payload=_VECTOR, highlight=None)
    for start in range(0, len(lists), step):
        part = lists[start : start + step]
        pools = [ranked[:pool] for ranked in part]
        await payloads.fill_payloads(collection, pools, vectors, context)
        orders = await run_stoppable(
            partial(_diverse_orders, pools, depth, options.diversity), context.deadline
        )
        for ranked, read, order in zip(part, pools, orders, strict=True):
            for _, hit in read:
                hit.vector = None
            others = set(range(len(read))).difference(order)
            by_score = [read[place] for place in sorted(others)] + ranked[pool:]
            selected.append(([read[place] for place in order] + by_score)[: options.k])
    return selected


def _diverse_orders(
    pools: Sequence[_RankedHits], depth: int, diversity: float, stopped: Stopped
) -> list[list[int]]:
    """Returns the positions of the diverse hits of each pool, whose vectors were read."""
    orders = []
    for pool in pools:
        vectors = np.array([hit.vector for _, hit in pool], np.float32)
        scores = np.array([hit.score for _, hit in pool], np.float64)
        orders.append(diverse_order(scores, vectors, depth, diversity, stopped=stopped))
    return orders

"""The second stage of a search: the reranker of the snapshot reads the best hits and reorders them.

A hit's new place is decided by its score of the search plus the weighted score of the reranker,
both standardised over the hits that were read. Without an answer in time, the order of the search
stays.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nearline import contract as c
from nearline.admission import leave_out
from nearline.errors import InvalidRequest, NearlineError, first_of
from nearline.tracing.spans import stage
from retrieval.embedders.endpoints import Embedders
from retrieval.protocols import metrics
from retrieval.search import payloads
from retrieval.search.collection import ServedCollection
from retrieval.search.queries import QueryBatch
from retrieval.search.request_context import RequestContext

# Pairs of a query and a hit that one request may have read.
MAX_PAIRS = 4_096
# The reranker has at most this time, and at most this share of what is left.
_TIMEOUT_S, _SHARE_OF_TIME = 1.0, 0.5
_QUERIES_AT_ONCE = 4
_TEXTS = frozenset({c.PayloadField.TITLE, c.PayloadField.TEXT})
_RankedHits = list[tuple[int, c.Hit]]


def hits_to_read(
    collection: ServedCollection, batch: QueryBatch, options: c.SearchOptions, queries: int
) -> int:
    """Returns how many of the best hits of each query are read, 0..100.

    Args:
        collection: The collection.
        batch: Queries.
        options: Validated options. Unless they say a number, a request of one query has the hits
            read that the snapshot says.
        queries: Number of queries of the whole request.
    Raises: InvalidRequest: the options ask for too many pairs.
    """
    card = collection.reranker
    if card is None or options.grouping is not None or not any(batch.texts):
        return 0
    if options.rerank is None:
        return card.candidates if queries == 1 else 0
    if options.rerank * queries > MAX_PAIRS:
        raise InvalidRequest(
            f"rerank is {options.rerank} for {queries} queries; at most {MAX_PAIRS:,} hits of a "
            "request are reranked: send fewer queries at a time, or a smaller number",
            field="options.rerank",
        )
    return options.rerank


async def rerank(
    collection: ServedCollection,
    batch: QueryBatch,
    lists: Sequence[_RankedHits],
    most: int,
    embedders: Embedders,
    options: c.SearchOptions,
    context: RequestContext,
) -> list[_RankedHits]:
    """Returns the hits of each query with the first `most` in a new order.

    Scores stay in their places: the first hit has the best one. Hits that can no longer be read are
    left out.

    Args:
        collection: Collection of the hits.
        batch: The queries.
        lists: Hits of each query, best first.
        most: Number of hits to read of each.
        embedders: Services that can run the reranker.
        options: Options of the search.
        context: Says how much time is left, and records why hits are not reranked.
    """
    if leave_out("rerank"):
        _note(context, "the server is overloaded")
        return list(lists)
    pools = [ranked[:most] for ranked in lists]
    read = replace(options, payload=_TEXTS, highlight=None)
    await payloads.fill_payloads(collection, pools, read, context)
    slots = asyncio.Semaphore(_QUERIES_AT_ONCE)

    async def scores_of(text: str, pool: _RankedHits) -> Sequence[float]:
        if not text or len(pool) < 2:
            return ()
        async with slots:
            until = context.share_of_time(_SHARE_OF_TIME)
            left_s = math.inf if until is None else until - asyncio.get_running_loop().time()
            return await embedders.rerank(
                text,
                [f"{hit.title or ''}\n{hit.text or ''}" for _, hit in pool],
                collection.fingerprint,
                f"{collection.name}/{collection.snapshot_id}",
                min(_TIMEOUT_S, max(0.0, left_s)),
            )

    try:
        with stage("rerank"):
            async with asyncio.TaskGroup() as tasks:
                reads = [tasks.create_task(one) for one in map(scores_of, batch.texts, pools)]
        # Not before all are read: if one query fails, the hits of no other are reordered.
        pools = [
            _in_order(pool, one.result(), collection)
            for pool, one in zip(pools, reads, strict=True)
        ]
    except* NearlineError as errors:
        error = first_of(errors)
        metrics.rerank_failures.labels(collection.name, error.reason).inc()
        _note(context, error.message)
    for pool in pools:
        for _, hit in pool:
            hit.title = hit.text = None
            hit.section = ()
    return [pool + ranked[most:] for pool, ranked in zip(pools, lists, strict=True)]


def combined(
    found: NDArray[np.float64], read: NDArray[np.floating], weight: float
) -> NDArray[np.float64]:
    """Returns scores by which hits are ordered, (n,).

    Args:
        found: (n,) scores of the search.
        read: (n,) scores of the reranker.
        weight: Weight of the reranker.
    """
    return _standardised(found) + weight * _standardised(np.asarray(read, np.float64))


def _in_order(
    pool: _RankedHits, scores: Sequence[float], collection: ServedCollection
) -> _RankedHits:
    assert collection.reranker is not None
    if not scores:
        return pool
    found = np.array([hit.score for _, hit in pool], np.float64)
    both = combined(found, np.array(scores, np.float64), collection.reranker.weight)
    ordered = [pool[place] for place in np.argsort(-both, kind="stable").tolist()]
    for (_, hit), score in zip(ordered, found.tolist(), strict=True):
        hit.score = score
    return ordered


def _standardised(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = scores.std()
    return np.asarray((scores - scores.mean()) / (spread if spread > 0 else 1.0))


def _note(context: RequestContext, why: str) -> None:
    said = f"hits are in the order of the search, not reranked: {why}"
    context.reduced = "; ".join(filter(None, (context.reduced, said)))

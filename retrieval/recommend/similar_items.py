"""Candidates from vectors: items similar to others."""

from __future__ import annotations

from collections.abc import Sequence

from nearline import contract as c
from nearline.errors import NotFound
from retrieval.protocols.shard import ShardQueries
from retrieval.recommend.candidate_pool import CandidateQuery
from retrieval.search import executor
from retrieval.search.example_queries import build_queries
from retrieval.search.queries import QueryBatch, align_to_metric

# The last few items of a history describe the current intent best.
_MAX_EXAMPLES = 20


async def find_similar_items(
    query: CandidateQuery, like: Sequence[str], depth: int, hidden: frozenset[str]
) -> list[tuple[c.Item, float]] | None:
    """Returns items similar to the mean of some others, best first, with their scores.

    Scores are cosine similarities or inner products, depending on the metric of the collection.

    Args:
        query: Which items match, and which of their fields to read.
        like: Ids of the examples, most relevant first. Ids that do not exist are ignored.
        depth: Number of items needed.
        hidden: Ids to leave out.
    Returns: None if none of the examples exists.
    Raises: ShardsUnavailable, DeadlineExceeded: no shard answered. InvalidRequest: the filter names
        an attribute that does not exist.
    """
    served, payload, filter, context = query
    ids = tuple(dict.fromkeys(like))[:_MAX_EXAMPLES]
    try:
        (example,) = await build_queries(served, {"item_ids": ids}, context)
    except NotFound:
        return None
    vectors = ShardQueries(align_to_metric(served, example.vector[None]))
    batch = QueryBatch(c.SearchMode.DENSE, [0], vectors, {0: frozenset(ids)})
    options = c.SearchOptions(k=min(depth + len(hidden), c.MAX_K), payload=payload, filter=filter)
    result = await executor.search(served, batch, options, context)
    visible = [hit for hit in result.lists[0] if hit.id not in hidden]
    return [(_item(hit), hit.score) for hit in visible[:depth]]


def _item(hit: c.Hit) -> c.Item:
    return c.Item(
        id=hit.id,
        title=hit.title or "",
        text=hit.text or "",
        attributes=hit.attributes or {},
        vector=hit.vector,
    )

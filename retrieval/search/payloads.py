"""Payload of hits that were chosen only after the shards had answered."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from nearline import contract as c
from retrieval.search import fanout
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext


async def fill_payloads(
    served: ServedCollection,
    lists: Sequence[list[tuple[int, c.Hit]]],
    options: c.SearchOptions,
    inquiry: RequestContext,
) -> None:
    """Reads the payload of hits from the shards that hold them, all lists together.

    Args:
        served: The collection.
        lists: Hits with the numbers of their shards; a hit that is gone by now, or whose shard
            fails now, is taken out.
        options: Says which parts are wanted.
        inquiry: Told of shards that do not answer, and how far live changes are in the others.
    """
    wanted: dict[int, dict[tuple[str, int], list[c.Hit]]] = {}
    for ranked in lists:
        for shard, hit in ranked:
            wanted.setdefault(shard, {}).setdefault((hit.id, hit.chunk), []).append(hit)
    if not wanted:
        return
    calls = {
        shard: asyncio.ensure_future(
            served.shards[shard].fetch(
                served.snapshot_id,
                [document_id for document_id, _ in hits],
                options.payload,
                inquiry.deadline,
                [chunk for _, chunk in hits],
                inquiry.least,
            )
        )
        for shard, hits in wanted.items()
    }
    answers = await fanout.gather(
        calls, inquiry.deadline, collection=served.name, full=options.require_full_coverage
    )
    inquiry.failures.update(answers.failures)
    for shard, fetched in answers.results.items():
        inquiry.heard(shard, (fetched.applied,))
        found = _by_chunk(list(wanted[shard]), fetched.items)
        for key, item in found.items():
            for hit in wanted[shard].pop(key):
                _fill(hit, item, options.payload)
    if any(wanted.values()):
        # What is left has no payload: its shard failed, or a live change took it away meanwhile.
        gone = {id(hit) for left in wanted.values() for hits in left.values() for hit in hits}
        for ranked in lists:
            ranked[:] = [one for one in ranked if id(one[1]) not in gone]


def _by_chunk(
    asked: Sequence[tuple[str, int]], items: Sequence[c.Item]
) -> dict[tuple[str, int], c.Item]:
    """Says which item is of which chunk asked for; those that are gone were left out.

    A document that was replaced by one with fewer chunks lacks the last ones.
    """
    if len(items) == len(asked):
        return dict(zip(asked, items, strict=True))
    counts = Counter(item.id for item in items)
    chunks: dict[str, list[int]] = {}
    for document_id, chunk in asked:
        chunks.setdefault(document_id, []).append(chunk)
    there = {one: set(sorted(numbers)[: counts[one]]) for one, numbers in chunks.items()}
    kept = [(one, chunk) for one, chunk in asked if chunk in there[one]]
    return dict(zip(kept, items, strict=True))


def _fill(hit: c.Hit, item: c.Item, payload: frozenset[c.PayloadField]) -> None:
    if c.PayloadField.TITLE in payload:
        hit.title = item.title
    if c.PayloadField.TEXT in payload:
        hit.text = item.text
    if c.PayloadField.ATTRIBUTES in payload:
        hit.attributes = item.attributes
    if c.PayloadField.VECTOR in payload:
        hit.vector = item.vector

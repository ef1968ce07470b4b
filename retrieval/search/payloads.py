"""Fills the payload of hits that were chosen only after the shards had answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from nearline import contract as c
from retrieval.protocols.shard import ItemsRequest
from retrieval.search import fanout
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext


async def fill_payloads(
    collection: ServedCollection,
    lists: Sequence[list[tuple[int, c.Hit]]],
    options: c.SearchOptions,
    context: RequestContext,
) -> None:
    """Reads the payload of hits from the shards that hold them, for all lists together.

    Args:
        collection: Collection of the hits.
        lists: Hits with their shard numbers; hits that no longer exist, or whose shard fails, are
            removed.
        options: Name the payload fields.
        context: Records failed shards and the progress of live changes in the others.
    """
    pending: dict[int, dict[tuple[str, int], list[c.Hit]]] = {}
    for ranked in lists:
        for shard, hit in ranked:
            pending.setdefault(shard, {}).setdefault((hit.id, hit.chunk), []).append(hit)
    if not pending:
        return
    calls = {
        shard: collection.shards[shard].fetch(
            collection.snapshot_id,
            ItemsRequest(
                [document_id for document_id, _ in hits],
                options.payload,
                [chunk for _, chunk in hits],
                context.visible,
                context.min_watermark,
            ),
            context.deadline,
        )
        for shard, hits in pending.items()
    }
    results, _ = await fanout.gather_reads(
        calls, context, collection=collection.name, full=options.require_full_coverage
    )
    for shard, fetched in results.items():
        for key, item in _by_chunk(list(pending[shard]), fetched.items).items():
            for hit in pending[shard].pop(key):
                _fill(hit, item, options.payload)
    if any(pending.values()):
        # The shard failed, or a live change has removed the item in the meantime.
        gone = {id(hit) for left in pending.values() for hits in left.values() for hit in hits}
        for ranked in lists:
            ranked[:] = [entry for entry in ranked if id(entry[1]) not in gone]


def _by_chunk(
    keys: Sequence[tuple[str, int]], items: Sequence[c.Item]
) -> dict[tuple[str, int], c.Item]:
    """Assigns the items read to the chunks requested; missing chunks were left out.

    A document that was replaced by one with fewer chunks lacks the last ones.
    """
    if len(items) == len(keys):
        return dict(zip(keys, items, strict=True))
    counts = Counter(item.id for item in items)
    chunks: dict[str, list[int]] = {}
    for document_id, chunk in keys:
        chunks.setdefault(document_id, []).append(chunk)
    existing = {one: set(sorted(numbers)[: counts[one]]) for one, numbers in chunks.items()}
    found = [(one, chunk) for one, chunk in keys if chunk in existing[one]]
    return dict(zip(found, items, strict=True))


def _fill(hit: c.Hit, item: c.Item, payload: frozenset[c.PayloadField]) -> None:
    if c.PayloadField.TITLE in payload:
        hit.title = item.title
    if c.PayloadField.TEXT in payload:
        hit.text = item.text
    if c.PayloadField.ATTRIBUTES in payload:
        hit.attributes = item.attributes
    if c.PayloadField.VECTOR in payload:
        hit.vector = item.vector

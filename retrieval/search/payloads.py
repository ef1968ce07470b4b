"""Fills the payload and highlights of hits that were chosen after the shards had answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

from nearline import contract as c
from nearline.tracing.spans import stage
from retrieval.protocols.shard import HighlightRequest, ItemsRequest
from retrieval.search import fanout
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext

_ChunkKey: TypeAlias = tuple[str, int]
# The hits of a chunk, each with the number of its query.
_Pending: TypeAlias = dict[_ChunkKey, list[tuple[int, c.Hit]]]


async def fill_payloads(
    collection: ServedCollection,
    lists: Sequence[list[tuple[int, c.Hit]]],
    options: c.SearchOptions,
    context: RequestContext,
    texts: Sequence[str] = (),
) -> None:
    """Reads the payload of hits from the shards that hold them, for all lists together.

    Args:
        collection: Collection of the hits.
        lists: Hits with their shard numbers; hits that no longer exist, or whose shard fails, are
            removed.
        options: Name the payload fields, and say whether to highlight the hits.
        context: Records failed shards and the progress of live changes in the others.
        texts: For each list, the words to highlight; none if it is empty.
    """
    pending: dict[int, _Pending] = {}
    for number, ranked in enumerate(lists):
        for shard, hit in ranked:
            chunks = pending.setdefault(shard, {})
            chunks.setdefault((hit.id, hit.chunk), []).append((number, hit))
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
                None if options.highlight is None else _highlight(collection, hits, options, texts),
            ),
            context.deadline,
        )
        for shard, hits in pending.items()
    }
    with stage("payload"):
        results, _ = await fanout.gather_reads(
            calls, context, collection=collection.name, full=options.require_full_coverage
        )
    for shard, fetched in results.items():
        # A shard of an older release does not highlight.
        highlights = fetched.highlights or [()] * len(fetched.items)
        found = zip(fetched.items, highlights, strict=True)
        for key, (item, marked) in zip(
            _chunks_read(list(pending[shard]), fetched.items), found, strict=True
        ):
            by_query = dict(zip(_queries(pending[shard][key]), marked, strict=False))
            for number, hit in pending[shard].pop(key):
                _fill(hit, item, options.payload)
                if number in by_query:
                    hit.highlights = _in_document(by_query[number], hit.start)
    if any(pending.values()):
        # The shard failed, or a live change has removed the item in the meantime.
        gone = {id(hit) for left in pending.values() for hits in left.values() for _, hit in hits}
        for ranked in lists:
            ranked[:] = [entry for entry in ranked if id(entry[1]) not in gone]


def _highlight(
    collection: ServedCollection, hits: _Pending, options: c.SearchOptions, texts: Sequence[str]
) -> HighlightRequest:
    """Returns what to highlight in the chunks, with the texts of these hits alone."""
    assert options.highlight is not None
    queries = [_queries(found) for found in hits.values()]
    places: dict[int, int] = {}
    for number in (number for some in queries for number in some):
        places.setdefault(number, len(places))
    return HighlightRequest(
        [texts[number] if texts else "" for number in places],
        [[places[number] for number in some] for some in queries],
        options.highlight.passage_chars,
        collection.lexical_chunks,
    )


def _queries(hits: Iterable[tuple[int, c.Hit]]) -> list[int]:
    """Returns the queries that found a chunk."""
    return list(dict.fromkeys(number for number, _ in hits))


def _in_document(highlights: c.Highlights, start: int) -> c.Highlights:
    """Returns the highlights of a chunk that begins at a code point of its document."""
    passage = highlights.passage
    if passage is None or not start:
        return highlights
    moved = replace(passage, start=passage.start + start, end=passage.end + start)
    return replace(highlights, passage=moved)


def _chunks_read(keys: Sequence[_ChunkKey], items: Sequence[c.Item]) -> list[_ChunkKey]:
    """Returns which of the chunks requested were read: one per item; missing ones were left out.

    A document that was replaced by one with fewer chunks lacks the last ones.
    """
    if len(items) == len(keys):
        return list(keys)
    counts = Counter(item.id for item in items)
    chunks: dict[str, list[int]] = {}
    for document_id, chunk in keys:
        chunks.setdefault(document_id, []).append(chunk)
    existing = {one: set(sorted(numbers)[: counts[one]]) for one, numbers in chunks.items()}
    return [(one, chunk) for one, chunk in keys if chunk in existing[one]]


def _fill(hit: c.Hit, item: c.Item, payload: frozenset[c.PayloadField]) -> None:
    if c.PayloadField.TITLE in payload:
        hit.title = item.title
    if c.PayloadField.TEXT in payload:
        hit.text = item.text
    if c.PayloadField.ATTRIBUTES in payload:
        hit.attributes = item.attributes
    if c.PayloadField.VECTOR in payload:
        hit.vector = item.vector
    hit.section = item.section

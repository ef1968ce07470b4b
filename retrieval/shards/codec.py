"""Converts between the records of the `Shard` protocol and the messages of ShardService."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Any, TypeAlias

import numpy as np

from nearline import contract as c, wire
from nearline.errors import InvalidRequest
from nearline.internal.v1 import shard_pb2
from nearline.v1 import retrieval_pb2
from nearline.vectors import count_rows, pack, unpack
from nearline.wire.limits import PART_OF_BATCH
from retrieval.live.progress import ShardProgress
from retrieval.protocols.shard import (
    TITLE_SCORE,
    FieldCounts,
    HighlightRequest,
    HitPayload,
    LexicalColumns,
    ShardCounts,
    ShardFilterPlan,
    ShardHits,
    ShardItems,
    ShardOptions,
    ShardQueries,
    ShardSuggestions,
)
from retrieval.protocols.watermark import AppliedState, Watermark, decode_watermark
from retrieval.search.request_context import oldest_state

_Response: TypeAlias = (
    shard_pb2.SearchShardResponse
    | shard_pb2.FetchItemsResponse
    | shard_pb2.ScanItemsResponse
    | shard_pb2.CountShardResponse
    | shard_pb2.SuggestShardResponse
    | shard_pb2.FindCandidatesResponse
)
# Columns of `ShardHits` and counts of `ShardProgress`, with the same names in their messages.
_COLUMNS = ("ids", "scores", "chunks", "starts", "ends")
_COUNTS = ("rows", "dead_rows", "hidden_rows", "changes", "behind")


def options_to_proto(options: ShardOptions) -> retrieval_pb2.SearchOptions:
    """Converts shard options to a message."""
    fields = options._asdict() | {"min_watermark": watermark_to_bytes(options.min_watermark)}
    return wire.options_to_proto(c.SearchOptions(**fields))


def options_from_proto(message: retrieval_pb2.SearchOptions) -> ShardOptions:
    """Converts a message to shard options."""
    options = wire.options_from_proto(message)
    fields: dict[str, Any] = {name: getattr(options, name) for name in ShardOptions._fields}
    fields["mode"] = options.mode or c.SearchMode.DENSE
    fields["min_watermark"] = decode_watermark(options.min_watermark, "options.min_watermark")
    return ShardOptions(**fields)


def watermark_to_bytes(watermark: Watermark | None) -> bytes:
    """Returns the encoded watermark; empty for None."""
    return b"" if watermark is None else watermark.encode()


def fill_queries(target: shard_pb2.SearchShardRequest, queries: ShardQueries) -> None:
    """Adds queries to a request."""
    if len(queries.vectors):
        target.vectors.CopyFrom(pack(queries.vectors))
    target.texts.extend(queries.texts)


def queries_from_proto(message: shard_pb2.SearchShardRequest, dim: int) -> ShardQueries:
    """Returns the queries of a request to a shard with vectors of dim `dim`.

    Raises: InvalidRequest: a different dim, or unequal numbers of texts and vectors.
    """
    texts = tuple(wire.bounded(message.texts, "texts", PART_OF_BATCH))
    if not message.HasField("vectors"):
        return ShardQueries(np.empty((0, dim), np.float32), texts)
    wire.check_count(count_rows(message.vectors), "vectors", PART_OF_BATCH)
    vectors = unpack(message.vectors)
    if vectors.shape[1] != dim:
        raise InvalidRequest(
            f"the vectors have dim {vectors.shape[1]}, the shard has dim {dim}", field="vectors"
        )
    if texts and len(texts) != len(vectors):
        raise InvalidRequest(
            f"there are {len(texts)} texts and {len(vectors)} vectors; send equal numbers",
            field="texts",
        )
    return ShardQueries(vectors, texts)


def hits_to_proto(results: Sequence[ShardHits]) -> shard_pb2.SearchShardResponse:
    """Converts the hits of many queries to a message."""
    message = shard_pb2.SearchShardResponse()
    for hits in results:
        target = message.results.add(**{name: getattr(hits, name) for name in _COLUMNS})
        for payload in hits.payloads:
            _fill_payload(target.payloads.add(), payload)
        if hits.lexical is not None:
            columns = hits.lexical._asdict()
            target.lexical_title_score = columns.pop("title_score")
            for name, column in columns.items():
                getattr(target, f"lexical_{name}").extend(column)
        for values in hits.boosts:
            target.boosts.extend(values)
        target.title_scores.extend(hits.title_scores)
        target.groups.extend(wire.value_to_proto(value) for value in hits.groups)
        if hits.plan is not None:
            target.plan.CopyFrom(wire.plan_to_proto(c.FilterPlan(shard=0, **hits.plan._asdict())))
        for word, chunks in hits.terms:
            target.terms.add(word=word, chunks=chunks)
        if hits.cost is not None:
            target.cost.CopyFrom(wire.cost_to_proto(hits.cost))
        target.fallback = hits.fallback
    fill_applied(message, oldest_state(hits.applied for hits in results))
    return message


def hits_from_proto(message: shard_pb2.SearchShardResponse) -> list[ShardHits]:
    """Converts a message to the hits of many queries, all with the oldest state among them."""
    applied = applied_from_proto(message)
    found = [_hits_from_proto(hits) for hits in message.results]
    for hits in found:
        hits.applied = applied
    return found


def highlight_to_proto(request: HighlightRequest | None) -> shard_pb2.HighlightRequest | None:
    """Converts the queries to highlight to a message."""
    if request is None:
        return None
    return shard_pb2.HighlightRequest(
        texts=request.texts,
        items=[shard_pb2.HighlightedItem(queries=one) for one in request.queries],
        passage_chars=request.passage_chars,
        chunks=request.chunks,
    )


def highlight_from_proto(message: shard_pb2.FetchItemsRequest) -> HighlightRequest | None:
    """Returns the queries to highlight; None if there are none."""
    if not message.HasField("highlight"):
        return None
    wanted = message.highlight
    queries = [one.queries for one in wanted.items]
    return HighlightRequest(wanted.texts, queries, wanted.passage_chars, wanted.chunks)


def fetched_items_to_proto(fetched: ShardItems) -> shard_pb2.FetchItemsResponse:
    """Converts items read by id to a message."""
    message = shard_pb2.FetchItemsResponse(items=map(wire.item_to_proto, fetched.items))
    for highlights in fetched.highlights:
        message.highlights.add(queries=map(wire.highlights_to_proto, highlights))
    fill_applied(message, fetched.applied)
    return message


def scanned_items_to_proto(fetched: ShardItems) -> shard_pb2.ScanItemsResponse:
    """Converts listed items to a message."""
    message = shard_pb2.ScanItemsResponse(items=map(wire.item_to_proto, fetched.items))
    fill_applied(message, fetched.applied)
    return message


def items_from_proto(
    message: shard_pb2.FetchItemsResponse | shard_pb2.ScanItemsResponse,
) -> ShardItems:
    """Converts a message to items."""
    items = [wire.item_from_proto(one) for one in message.items]
    if isinstance(message, shard_pb2.ScanItemsResponse):
        return ShardItems(items, applied_from_proto(message))
    highlights = [list(map(wire.highlights_from_proto, one.queries)) for one in message.highlights]
    return ShardItems(items, applied_from_proto(message), highlights)


def _hits_from_proto(hits: shard_pb2.ShardHits) -> ShardHits:
    columns: dict[str, Any] = {name: list(getattr(hits, name)) for name in _COLUMNS}
    payloads = [_payload_from_proto(payload) for payload in hits.payloads]
    found = ShardHits(**columns, payloads=payloads)
    if hits.lexical_scores:
        found.lexical = LexicalColumns(
            list(hits.lexical_scores),
            list(hits.lexical_chunks),
            list(hits.lexical_starts),
            list(hits.lexical_ends),
            list(hits.lexical_titles) or [0.0] * len(hits.lexical_scores),
            hits.lexical_title_score or TITLE_SCORE,
        )
    if hits.boosts:
        width = len(hits.boosts) // len(hits.ids)
        flat = list(hits.boosts)
        found.boosts = [flat[at : at + width] for at in range(0, len(flat), width)]
    if hits.title_scores:
        found.title_scores = list(hits.title_scores)
    if hits.groups:
        found.groups = [wire.scalar_from_proto(value) for value in hits.groups]
    if hits.terms:
        found.terms = [(term.word, term.chunks) for term in hits.terms]
    if hits.HasField("cost"):
        found.cost = wire.cost_from_proto(hits.cost)
    found.fallback = hits.fallback
    if hits.HasField("plan"):
        plan = wire.plan_from_proto(hits.plan)
        found.plan = ShardFilterPlan(
            plan.strategy, plan.matches, plan.chunks, plan.ef_search, plan.reason
        )
    return found


def counts_to_proto(counts: ShardCounts, fields: Sequence[str]) -> shard_pb2.CountShardResponse:
    """Converts counts to a message."""
    message = shard_pb2.CountShardResponse(count=counts.count)
    for field, one in zip(fields, counts.fields, strict=True):
        target = message.facets.add(field=field, distinct=len(one.counts), missing=one.missing)
        for value, count in one.counts.items():
            target.counts.add(value=wire.value_to_proto(value), count=count)
    fill_applied(message, counts.applied)
    return message


def counts_from_proto(message: shard_pb2.CountShardResponse) -> ShardCounts:
    """Converts a message to counts."""
    return ShardCounts(
        message.count,
        [
            FieldCounts(
                {wire.scalar_from_proto(one.value): one.count for one in facet.counts},
                facet.missing,
            )
            for facet in message.facets
        ],
        applied_from_proto(message),
    )


def suggestions_to_proto(found: ShardSuggestions) -> shard_pb2.SuggestShardResponse:
    """Converts suggestions to a message."""
    message = shard_pb2.SuggestShardResponse(
        suggestions=map(wire.suggestion_to_proto, found.suggestions), correction=found.correction
    )
    fill_applied(message, found.applied)
    return message


def suggestions_from_proto(message: shard_pb2.SuggestShardResponse) -> ShardSuggestions:
    """Converts a message to suggestions."""
    return ShardSuggestions(
        [wire.suggestion_from_proto(one) for one in message.suggestions],
        message.correction,
        applied_from_proto(message),
    )


def fill_applied(target: _Response, applied: AppliedState | None) -> None:
    if applied is not None:
        target.watermark, target.stale = applied.watermark.encode(), applied.stale


def applied_from_proto(message: _Response) -> AppliedState | None:
    watermark = decode_watermark(message.watermark, "watermark of a shard")
    return None if watermark is None else AppliedState(watermark, message.stale)


def _fill_payload(target: shard_pb2.HitPayload, payload: HitPayload) -> None:
    if payload.title is not None:
        target.title = payload.title
    if payload.text is not None:
        target.text = payload.text
    if payload.attributes is not None:
        for name, value in payload.attributes.items():
            target.attributes[name].CopyFrom(wire.value_to_proto(value))
    if payload.vector is not None:
        target.vector.CopyFrom(pack(payload.vector))
    target.section.extend(payload.section)


def _payload_from_proto(message: shard_pb2.HitPayload) -> HitPayload:
    return HitPayload(
        message.title if message.HasField("title") else None,
        message.text if message.HasField("text") else None,
        wire.attributes_from_proto(message.attributes),
        unpack(message.vector)[0] if message.HasField("vector") else None,
        tuple(message.section),
    )


def fill_progress(message: shard_pb2.LoadedShard, progress: ShardProgress) -> None:
    """Adds the progress of live changes to the status of a shard."""
    message.watermark = progress.applied.watermark.encode()
    message.stale = progress.applied.stale
    delta = message.delta
    for name in _COUNTS:
        setattr(delta, name, getattr(progress, name))
    if progress.away_s is not None:
        wire.set_duration(delta.away, progress.away_s)
    if progress.oldest_change is not None:
        delta.oldest_change_time.FromDatetime(progress.oldest_change)


def progress_from_proto(message: shard_pb2.LoadedShard) -> ShardProgress | None:
    """Returns the progress in the status of a shard; None if it follows no change log.

    Raises: InvalidRequest: not a valid watermark.
    """
    watermark = decode_watermark(message.watermark, "watermark")
    if watermark is None:
        return None
    delta = message.delta
    return ShardProgress(
        applied=AppliedState(watermark, message.stale),
        **{name: getattr(delta, name) for name in _COUNTS},
        away_s=delta.away.ToTimedelta().total_seconds() if delta.HasField("away") else None,
        oldest_change=delta.oldest_change_time.ToDatetime(UTC)
        if delta.HasField("oldest_change_time")
        else None,
    )

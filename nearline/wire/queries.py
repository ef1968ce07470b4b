"""Queries and search options: contract records to protobuf and back."""

from __future__ import annotations

from collections.abc import Sequence

from nearline import contract as c
from nearline.errors import InvalidRequest
from nearline.internal.v1 import shard_pb2
from nearline.v1 import retrieval_pb2
from nearline.vectors import decode, pack
from nearline.wire.boosts import boost_from_proto, boost_to_proto
from nearline.wire.enums import (
    LEVEL_OF,
    LEVELS,
    MODE_OF,
    MODES,
    lookup,
    payload_from_proto,
    payload_to_proto,
)
from nearline.wire.filters import filter_from_proto, filter_to_proto
from nearline.wire.highlights import highlighting_from_proto
from nearline.wire.limits import BATCH, LIMITS, bounded

_MAX_UINT32 = (1 << 32) - 1


def query_to_proto(query: c.Query) -> retrieval_pb2.Query:
    """Returns the message of a query.

    Raises: InvalidRequest: not exactly one of text, vector and item_ids is set.
    """
    count = (query.text is not None) + (query.vector is not None) + bool(query.item_ids)
    if count != 1:
        raise InvalidRequest(
            f"a query has {count} of text, vector and item_ids; set exactly one", field="query"
        )
    if query.text is not None:
        return retrieval_pb2.Query(text=query.text)
    if query.vector is not None:
        return retrieval_pb2.Query(vector=pack(query.vector))
    return retrieval_pb2.Query(items=retrieval_pb2.ItemIds(ids=query.item_ids))


def query_from_proto(query: retrieval_pb2.Query) -> c.Query:
    """Returns the query of a message.

    Raises: InvalidRequest: no kind is set, or the vector is not one row.
    """
    kind = query.WhichOneof("kind")
    if kind == "text":
        return c.Query(text=query.text)
    if kind == "vector":
        # The service checks the numbers, whatever their format.
        rows = decode(query.vector, "query.vector")
        if len(rows) != 1:
            raise InvalidRequest(
                f"query.vector has {len(rows)} rows; send one, or use SearchBatch",
                field="query.vector",
            )
        return c.Query(vector=rows[0])
    if kind == "items":
        return c.Query(
            item_ids=tuple(bounded(query.items.ids, "query.items", LIMITS["ItemIds.ids"]))
        )
    raise InvalidRequest("the query is empty; set text, vector or items", field="query")


def queries_from_proto(queries: Sequence[retrieval_pb2.Query]) -> list[c.Query]:
    """Returns the queries of messages.

    Raises: InvalidRequest: there are too many, or one is malformed.
    """
    return [query_from_proto(one) for one in bounded(queries, "queries", BATCH)]


def facets_from_proto(facets: Sequence[retrieval_pb2.Facet]) -> list[c.Facet]:
    """Returns the facets of messages. Raises: InvalidRequest: there are too many."""
    few = bounded(facets, "facets", LIMITS["CountItemsRequest.facets"])
    return [c.Facet(field=one.field, limit=one.limit or 10) for one in few]


def filter_of(
    request: retrieval_pb2.ListItemsRequest
    | retrieval_pb2.CountItemsRequest
    | retrieval_pb2.SuggestRequest
    | retrieval_pb2.DeleteItemsByFilterRequest
    | retrieval_pb2.RecommendRequest
    | shard_pb2.FetchItemsRequest
    | shard_pb2.ScanItemsRequest
    | shard_pb2.CountShardRequest
    | shard_pb2.SuggestShardRequest
    | shard_pb2.FindCandidatesRequest,
) -> c.Filter | None:
    """Returns the filter of a request, or None.

    Raises: InvalidRequest: a malformed filter.
    """
    return filter_from_proto(request.filter, "filter") if request.HasField("filter") else None


def options_to_proto(options: c.SearchOptions) -> retrieval_pb2.SearchOptions:
    """Returns the message of search options.

    Raises: InvalidRequest: a number that no message can hold.
    """
    check_uint32(options.k, "options.k", c.MAX_K)
    check_uint32(options.ef_search, "options.ef_search")
    check_uint32(options.nprobe, "options.nprobe")
    check_uint32(options.rerank, "options.rerank", c.MAX_RERANKED)
    if options.grouping is not None:
        check_uint32(options.grouping.size, "options.grouping.size", c.MAX_GROUP_SIZE)
    message = retrieval_pb2.SearchOptions(
        k=options.k,
        mode=MODES[options.mode] if options.mode else retrieval_pb2.SEARCH_MODE_UNSPECIFIED,
        level=LEVELS[options.level],
        payload=payload_to_proto(options.payload),
        ef_search=options.ef_search,
        nprobe=options.nprobe,
        exact=options.exact,
        require_full_coverage=options.require_full_coverage,
        snapshot_id=options.snapshot_id,
        explain=options.explain,
        min_score=options.min_score,
        diversity=options.diversity or None,
        dense_weight=options.dense_weight,
        min_watermark=options.min_watermark,
        unit=options.unit,
        plain_text=options.plain_text,
        min_should_match=options.min_should_match,
        rerank=options.rerank,
        user_id=options.user_id,
        session_id=options.session_id,
        personal=options.personal,
        unrecorded=options.unrecorded,
        boosts=[
            boost_to_proto(boost, f"options.boosts[{at}]")
            for at, boost in enumerate(options.boosts)
        ],
    )
    if options.filter is not None:
        message.filter.CopyFrom(filter_to_proto(options.filter))
    if options.highlight is not None:
        check_uint32(
            options.highlight.passage_chars,
            "options.highlight.passage_chars",
            c.MAX_PASSAGE_CHARACTERS,
        )
        message.highlight.passage_chars = options.highlight.passage_chars
    if options.grouping is not None:
        message.grouping.field = options.grouping.field
        message.grouping.size = options.grouping.size
    return message


def check_uint32(value: int | None, field: str, most: int = _MAX_UINT32) -> None:
    """Refuses a number that does not fit a message; the service checks the range of others.

    Args:
        value: The number, or None.
        field: Field of the request.
        most: The service's limit, for the message.
    Raises: InvalidRequest.
    """
    if value is not None and not 0 <= value <= _MAX_UINT32:
        raise InvalidRequest(f"{field} is {value}; 1..{most} is allowed", field=field)


def options_from_proto(options: retrieval_pb2.SearchOptions) -> c.SearchOptions:
    """Returns the search options of a message; ranges are checked by the service.

    Raises: InvalidRequest: unknown enum number, a malformed filter.
    """
    return c.SearchOptions(
        k=options.k if options.HasField("k") else 10,
        mode=lookup(MODE_OF, options.mode, "options.mode") if options.mode else None,
        level=lookup(LEVEL_OF, options.level, "options.level"),
        payload=payload_from_proto(options.payload) if options.payload else frozenset(),
        ef_search=options.ef_search if options.HasField("ef_search") else None,
        nprobe=options.nprobe if options.HasField("nprobe") else None,
        exact=options.exact,
        require_full_coverage=options.require_full_coverage,
        snapshot_id=options.snapshot_id,
        explain=options.explain,
        filter=filter_from_proto(options.filter) if options.HasField("filter") else None,
        min_score=options.min_score if options.HasField("min_score") else None,
        grouping=(
            c.Grouping(options.grouping.field, options.grouping.size or 1)
            if options.HasField("grouping")
            else None
        ),
        diversity=options.diversity,
        dense_weight=options.dense_weight if options.HasField("dense_weight") else None,
        min_watermark=options.min_watermark,
        unit=options.unit,
        boosts=tuple(
            boost_from_proto(boost, f"options.boosts[{at}]")
            for at, boost in enumerate(
                bounded(options.boosts, "options.boosts", LIMITS["SearchOptions.boosts"])
            )
        ),
        highlight=(
            highlighting_from_proto(options.highlight) if options.HasField("highlight") else None
        ),
        plain_text=options.plain_text,
        min_should_match=(
            options.min_should_match if options.HasField("min_should_match") else None
        ),
        rerank=options.rerank if options.HasField("rerank") else None,
        user_id=options.user_id,
        session_id=options.session_id,
        personal=options.personal,
        unrecorded=options.unrecorded,
    )

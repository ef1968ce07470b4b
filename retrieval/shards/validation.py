"""Validates requests to a shard server, which bound what one call may cost.

Routers send requests that they have validated. Another caller, or a router of another version,
must not occupy the shard of all callers.
"""

from __future__ import annotations

from collections.abc import Sequence

from nearline import contract as c
from nearline.errors import InvalidRequest
from nearline.internal.v1 import shard_pb2
from nearline.store.snapshot import shard_of
from nearline.wire.limits import LIMITS, TEXT, Limit, check_range
from retrieval.protocols.request_validation import check_id
from retrieval.protocols.shard import (
    CountRequest,
    HighlightRequest,
    ItemsRequest,
    ScanRequest,
    ShardOptions,
    ShardQueries,
    SuggestRequest,
)


def check_search(queries: ShardQueries, options: ShardOptions) -> None:
    """Raises InvalidRequest if queries do not fit the mode, or a number is out of range."""
    vectors, texts = len(queries.vectors), len(queries.texts)
    if options.mode is not c.SearchMode.LEXICAL:
        _check("vectors", vectors, c.MAX_BATCH)
    if options.mode is not c.SearchMode.DENSE:
        _check("texts", texts, c.MAX_BATCH)
        _check_texts(queries.texts, "texts")
    _check("options.k", options.k, c.MAX_HITS)
    for name in ("ef_search", "nprobe"):
        if (value := getattr(options, name)) is not None:
            check_range(value, f"options.{name}", LIMITS[f"SearchOptions.{name}"])
    if options.boosts:
        _check("options.boosts", len(options.boosts), c.MAX_BOOSTS)
        for at, boost in enumerate(options.boosts):
            if len(boost.any_of) > c.MAX_BOOST_VALUES:
                field = f"options.boosts[{at}].any_of"
                _check(field, len(boost.any_of), c.MAX_BOOST_VALUES)
    if options.grouping is not None:
        _check("options.grouping.size", options.grouping.size, c.MAX_GROUP_SIZE)


def check_history(request: shard_pb2.ReadHistoryRequest, shards: int) -> None:
    """Raises InvalidRequest if there is no user, or if the user belongs to another shard."""
    if not request.user_id:
        raise InvalidRequest("user_id is empty; name the user", field="user_id")
    check_id(request.user_id, "user_id")
    owner = shard_of(request.user_id, shards)
    if request.shard != owner:
        raise InvalidRequest(
            f"the user belongs to shard {owner}, not to {request.shard}; ask that shard",
            field="shard",
        )


def check_fetch(request: ItemsRequest) -> None:
    """Raises InvalidRequest if there are no ids, too many, or not a chunk for each."""
    _check("ids", len(request.ids), c.MAX_HITS)
    if request.chunks and len(request.chunks) != len(request.ids):
        raise InvalidRequest(
            f"there are {len(request.ids)} ids and {len(request.chunks)} chunks; send a chunk for "
            "each id, or none",
            field="chunks",
        )
    if request.highlight is not None:
        _check_highlight(request, request.highlight)


def check_scan(request: ScanRequest) -> None:
    """Raises InvalidRequest if the limit is out of range."""
    _check("limit", request.limit, c.MAX_PAGE)


def check_count(request: CountRequest) -> None:
    """Raises InvalidRequest if there are too many fields."""
    if request.fields:
        _check("fields", len(request.fields), c.MAX_FACETS)


def check_suggest(request: SuggestRequest) -> None:
    """Raises InvalidRequest if the text is too long, or the limit is out of range."""
    _check("limit", request.limit, c.MAX_SUGGESTIONS)
    _check("text", len(request.text), c.MAX_TYPED_CHARACTERS)


def _check_highlight(request: ItemsRequest, highlight: HighlightRequest) -> None:
    _check("highlight.texts", len(highlight.texts), c.MAX_BATCH)
    _check_texts(highlight.texts, "highlight.texts")
    _check("highlight.passage_chars", highlight.passage_chars, c.MAX_PASSAGE_CHARACTERS)
    if not len(highlight.queries) == len(request.chunks) == len(request.ids):
        raise InvalidRequest(
            f"there are {len(request.ids)} ids, {len(request.chunks)} chunks and "
            f"{len(highlight.queries)} lists of queries to highlight; send one of each per id",
            field="highlight.items",
        )
    if sum(map(len, highlight.queries)) > c.MAX_HITS:
        raise InvalidRequest(
            f"more than {c.MAX_HITS:,} hits are to be highlighted; send several requests",
            field="highlight.items",
        )
    if any(one >= len(highlight.texts) for queries in highlight.queries for one in queries):
        raise InvalidRequest(
            "an item names a query that is not among highlight.texts; send its text",
            field="highlight.items",
        )


def _check_texts(texts: Sequence[str], field: str) -> None:
    for at, text in enumerate(texts):
        check_range(len(text), f"{field}[{at}]", TEXT._replace(least=0), unit=" characters")


def _check(field: str, value: int, most: int) -> None:
    check_range(value, field, Limit(1, most))

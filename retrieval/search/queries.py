"""Parses and validates search requests: queries of every kind become batches for the shards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nearline import contract as c
from nearline.errors import InvalidRequest, SnapshotGone, Unsupported
from nearline.vectors import as_matrix
from nearline.wire.limits import LIMITS, TEXT, check_range
from retrieval.embedders.endpoints import Embedders
from retrieval.protocols.shard import ShardQueries
from retrieval.search.boosts import check_boosted, check_boosts
from retrieval.search.collection import ServedCollection
from retrieval.search.example_queries import build_queries
from retrieval.search.query_syntax import ParsedText, as_plain, parse_text, with_share
from retrieval.search.query_vectors import embed_texts
from retrieval.search.request_context import RequestContext, check_names

# Queries of different conditions are searched one after another.
_MAX_GROUPS = 64
# If the squared length of a vector differs from 1 by at most half of this, the vector is as close
# to unit length as float32 allows.
_UNIT_SLACK = 2e-6
# Default mode of a text query by (has words, has a model).
_TEXT_MODES = {
    (True, True): c.SearchMode.HYBRID,
    (True, False): c.SearchMode.LEXICAL,
    (False, True): c.SearchMode.DENSE,
    (False, False): c.SearchMode.DENSE,
}


@dataclass(slots=True)
class QueryBatch:
    """Queries of one mode, ready for the shards.

    numbers: Positions of the queries in the request. excluded: By position in `queries`, ids that
    the answer must not contain. texts: The words of each query; empty if it has none, or if all
    have none. condition: What hits must meet besides the filter of the request.
    """

    mode: c.SearchMode
    numbers: Sequence[int]
    queries: ShardQueries
    excluded: Mapping[int, frozenset[str]] = field(default_factory=dict)
    texts: Sequence[str] = ()
    condition: c.Filter | None = None


@dataclass(slots=True)
class PreparedQueries:
    """All queries of a request, ready for the shards.

    ignored: By query number, item ids that could not be used. embed_s: Seconds spent on embedding;
    None if nothing was embedded. words_only: Whether texts are searched by their words alone since
    no embedder answered.
    """

    batches: list[QueryBatch] = field(default_factory=list)
    ignored: Mapping[int, Sequence[c.IgnoredId]] = field(default_factory=dict)
    embed_s: float | None = None
    words_only: bool = False


async def prepare_queries(
    collection: ServedCollection,
    embedders: Embedders,
    queries: Sequence[c.Query],
    names: Sequence[str],
    options: c.SearchOptions,
    context: RequestContext,
) -> PreparedQueries:
    """Turns queries into vectors and words; all texts are embedded together.

    Args:
        collection: Collection to search.
        embedders: Embed the texts.
        queries: 1..1,024 queries.
        names: Field of each query, for errors.
        options: Without a mode, texts are searched in the best mode that the collection supports
            (hybrid where possible) and other queries in mode dense.
        context: Records failed shards and the progress of live changes in the others.
    Raises: InvalidRequest: a query is malformed, or is not a text although an option needs words.
        Errors of embedder and shards.
    """
    prepared = PreparedQueries()
    mode = options.mode
    vectors: dict[int, NDArray[np.float32]] = {}
    texts: dict[int, ParsedText] = {}
    items: dict[int, Sequence[str]] = {}
    for number, (query, name) in enumerate(zip(queries, names, strict=True)):
        kinds = (query.text is not None) + (query.vector is not None) + bool(query.item_ids)
        if kinds != 1:
            raise InvalidRequest(
                f"{name} has {kinds} of text, vector and item ids; set exactly one", field=name
            )
        if query.text is not None:
            texts[number] = parsed_text(collection, query, name, options)
        elif mode is c.SearchMode.LEXICAL or mode is c.SearchMode.HYBRID:
            raise InvalidRequest(
                f"{name} is not a text, and mode {mode.value} needs words; send a text, or use "
                "mode dense",
                field="options.mode",
            )
        elif options.min_should_match is not None:
            raise InvalidRequest(
                f"{name} is not a text, and min_should_match is a share of its words; send a text, "
                "or leave min_should_match unset",
                field="options.min_should_match",
            )
        elif query.vector is not None:
            vectors[number] = _query_vector(collection, query.vector, name)
        else:
            items[number] = query.item_ids
    text_mode = mode or _TEXT_MODES[collection.words_by_default, collection.has_model]
    context.no_model = bool(texts) and mode is None and not collection.has_model
    if items:
        fields = {f"{names[number]}.items": ids for number, ids in items.items()}
        examples = await build_queries(collection, fields, context)
        prepared.ignored = {n: one.ignored for n, one in zip(items, examples, strict=True)}
        vectors |= {n: one.vector[None] for n, one in zip(items, examples, strict=True)}
    if texts and text_mode is not c.SearchMode.LEXICAL:
        _check_model(collection, names[next(iter(texts))])
        plain = [one.plain for one in texts.values()]
        embedded, prepared.embed_s = await embed_texts(collection, embedders, plain, context)
        if embedded is None:
            text_mode, prepared.words_only = c.SearchMode.LEXICAL, True
        else:
            vectors |= {n: row[None] for n, row in zip(texts, embedded, strict=True)}
    # Shards answer queries of one mode and one filter together.
    groups: dict[tuple[c.SearchMode, c.Filter | None], list[int]] = {}
    for number in range(len(queries)):
        own = texts.get(number)
        group = (c.SearchMode.DENSE, None) if own is None else (text_mode, own.condition)
        groups.setdefault(group, []).append(number)
    _check_conditions(len(groups))
    for (its_mode, condition), numbers in groups.items():
        excluded = {place: frozenset(items[n]) for place, n in enumerate(numbers) if n in items}
        matrix = (
            np.empty((0, collection.dim), np.float32)
            if its_mode is c.SearchMode.LEXICAL
            else _matrix(collection, [vectors[n] for n in numbers])
        )
        words = tuple(texts[n].words if n in texts else "" for n in numbers)
        matched = () if its_mode is c.SearchMode.DENSE else words
        batch = QueryBatch(
            its_mode, numbers, ShardQueries(matrix, matched), excluded, words, condition
        )
        prepared.batches.append(batch)
    return prepared


def parsed_text(
    collection: ServedCollection, query: c.Query, field: str, options: c.SearchOptions
) -> ParsedText:
    """Returns the text of a text query without its syntax, which needs a lexical index.

    Raises: InvalidRequest: see `query_text` and `query_syntax.parse_text`.
    """
    text = query_text(query, field)
    plain = options.plain_text or not collection.has_words
    parsed = as_plain(text) if plain else parse_text(text, field)
    if options.min_should_match is not None:
        parsed = with_share(parsed, options.min_should_match, field)
    return parsed


def _check_conditions(groups: int) -> None:
    """Raises InvalidRequest if a request has too many queries of different conditions."""
    if groups > _MAX_GROUPS:
        raise InvalidRequest(
            f"the queries have {groups:,} different conditions (phrases, excluded words, "
            f"min_should_match), {_MAX_GROUPS} are allowed; send fewer queries at once, or set "
            "options.plain_text",
            field="queries",
        )


def check_cost(queries: int, options: c.SearchOptions) -> None:
    """Raises InvalidRequest if a search asks for too many hits, or for too many filled groups."""
    check_range(options.k, "options.k", LIMITS["SearchOptions.k"])
    if options.boosts:
        check_boosted(queries, options)
    size = 1 if options.grouping is None else max(1, options.grouping.size)
    groups = queries * options.k
    factors = f"{queries:,} queries x k {options.k:,}"
    if groups * size > c.MAX_HITS:
        raise InvalidRequest(
            f"the search asks for {groups * size:,} hits ({factors} x groups of {size:,}); at most "
            f"{c.MAX_HITS:,} are allowed; lower k or the size of groups, or send fewer queries at "
            "once",
            field="options.k",
        )
    if size > 1 and groups > c.MAX_FILLED_GROUPS:
        raise InvalidRequest(
            f"the search asks for {groups:,} groups of several hits ({factors}); at most "
            f"{c.MAX_FILLED_GROUPS:,} are allowed; lower k, set grouping.size 1, or send fewer "
            "queries at once",
            field="options.k",
        )


def check_options(
    collection: ServedCollection, options: c.SearchOptions, visible: c.Filter | None = None
) -> None:
    """Validates search options for a collection.

    visible: As for `check_names`.
    Raises: InvalidRequest: a value is out of range. Unsupported: the snapshot lacks the index that
        an option needs. SnapshotGone: the options name another snapshot.
    """
    for name in ("ef_search", "nprobe", "diversity", "dense_weight", "rerank"):
        if (value := getattr(options, name)) is not None:
            check_range(value, f"options.{name}", LIMITS[f"SearchOptions.{name}"])
    if options.mode in (c.SearchMode.LEXICAL, c.SearchMode.HYBRID) and not collection.has_words:
        raise Unsupported(
            f"snapshot {collection.snapshot_id} of {collection.name!r} has no lexical index, so "
            f"mode {options.mode.value} cannot be served; use mode dense",
            field="options.mode",
        )
    if options.min_should_match is not None:
        if not 0 < options.min_should_match <= 1:
            raise InvalidRequest(
                f"min_should_match is {options.min_should_match}; above 0 and at most 1 is "
                "allowed: the share of the words of the query that a hit must have",
                field="options.min_should_match",
            )
        if not collection.has_words:
            raise Unsupported(
                f"snapshot {collection.snapshot_id} of {collection.name!r} has no lexical index, "
                "so words cannot be required; leave min_should_match unset",
                field="options.min_should_match",
            )
    if options.min_score is not None and not math.isfinite(options.min_score):
        raise InvalidRequest(
            f"min_score is {options.min_score}, not a finite number; leave it unset",
            field="options.min_score",
        )
    named = [(one.field, f"options.boosts[{n}].field") for n, one in enumerate(options.boosts)]
    if options.grouping is not None:
        named.append((options.grouping.field, "options.grouping.field"))
    check_names(collection, visible, options.filter, named)
    if options.grouping is not None:
        _check_grouping(collection, options, options.grouping)
    if options.boosts:
        check_boosts(options.boosts, collection.attribute_kinds)
    if options.highlight is not None:
        limit = LIMITS["Highlighting.passage_chars"]._replace(least=1)
        check_range(options.highlight.passage_chars, "options.highlight.passage_chars", limit)
    if options.snapshot_id and options.snapshot_id != collection.snapshot_id:
        raise SnapshotGone(
            f"snapshot {options.snapshot_id} of {collection.name!r} is not loaded, "
            f"{collection.snapshot_id} is; retry the whole request without options.snapshot_id",
            field="options.snapshot_id",
        )


def query_text(query: c.Query, field: str) -> str:
    """Returns the text of a text query.

    Raises: InvalidRequest: the text is blank, too long, or not valid Unicode.
    """
    text = query.text or ""
    where = f"{field}.text"
    if not text.strip():
        raise InvalidRequest(f"{where} is empty; send some words", field=where)
    check_range(len(text), where, TEXT, "search with a passage of it", " characters")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"{where} is not valid Unicode at character {error.start} (a lone surrogate); "
            "decode it properly before sending",
            field=where,
        ) from error
    return text


def align_to_metric(
    collection: ServedCollection, matrix: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Returns query vectors scaled to unit length if the metric is cosine, else unchanged.

    Args:
        matrix: (n, d) float32.
    Raises: InvalidRequest: NaN or infinity, or a row that is all zeros and has no direction.
    """
    # In float64, no finite float32 is too large or too small to square. No dot product: BLAS
    # releases the interpreter lock, and reacquiring it takes longer than squaring these few
    # numbers.
    squares = np.multiply(matrix, matrix, dtype=np.float64).sum(axis=1)
    smallest = float(squares[0]) if len(squares) == 1 else float(squares.min())
    largest = smallest if len(squares) == 1 else float(squares.max())
    if not math.isfinite(smallest + largest):
        as_matrix(matrix, "query.vector")
    if not collection.unit_length or abs(smallest - 1) + abs(largest - 1) <= _UNIT_SLACK:
        return matrix
    if smallest == 0:
        number = int(np.flatnonzero(squares == 0)[0])
        of = f" of query {number}" if len(squares) > 1 else ""
        raise InvalidRequest(
            f"the vector{of} is all zeros and has no direction; leave it out",
            field="query.vector",
        )
    # Rows of unit length stay unchanged, whatever rows they are sent with.
    norms = np.where(np.abs(squares - 1) <= _UNIT_SLACK / 2, 1.0, np.sqrt(squares))
    unit: NDArray[np.float32] = (matrix / norms[:, None]).astype(np.float32)
    return unit


def _query_vector(
    collection: ServedCollection, vector: NDArray[np.float32], field: str
) -> NDArray[np.float32]:
    """Returns the vector of a vector query, (1, d) float32.

    Raises: InvalidRequest: a different dim, more than one row, NaN or infinity.
    """
    if vector.dtype == np.float32 and vector.shape == (collection.dim,):
        # The common case; `align_to_metric` finds numbers that are not finite.
        return np.ascontiguousarray(vector).reshape(1, -1)
    matrix = as_matrix(vector, f"{field}.vector")
    rows, dim = matrix.shape
    if rows != 1:
        raise InvalidRequest(
            f"{field}.vector has {rows} rows; send one, or use SearchBatch",
            field=f"{field}.vector",
        )
    if dim != collection.dim:
        model = f", made by model {collection.fingerprint}" if collection.fingerprint else ""
        raise InvalidRequest(
            f"{field}.vector has dim {dim}, collection {collection.name!r} has dim "
            f"{collection.dim}{model}; embed the query with the collection's model",
            field=f"{field}.vector",
        )
    return matrix


def _check_grouping(
    collection: ServedCollection, options: c.SearchOptions, grouping: c.Grouping
) -> None:
    check_range(grouping.size, "options.grouping.size", LIMITS["Grouping.size"]._replace(least=1))
    if options.diversity:
        raise InvalidRequest(
            "grouping and diversity exclude each other; leave one of them unset",
            field="options.diversity",
        )
    if grouping.field in collection.list_valued:
        raise InvalidRequest(
            f"grouping.field {grouping.field!r} holds lists; group by another attribute",
            field="options.grouping.field",
        )


def _check_model(collection: ServedCollection, field: str) -> None:
    """Raises InvalidRequest if no model can embed texts for the collection."""
    if not collection.fingerprint:
        raise InvalidRequest(
            f"the vectors of collection {collection.name!r} were supplied by its owner, so no "
            "model can embed a text for it; send a vector or item ids",
            field=f"{field}.text",
        )


def _matrix(
    collection: ServedCollection, rows: Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    return align_to_metric(collection, rows[0] if len(rows) == 1 else np.concatenate(rows))

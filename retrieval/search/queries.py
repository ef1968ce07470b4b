"""Parses and validates search requests: queries of every kind become batches for the shards."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nearline import contract as c
from nearline.errors import InvalidRequest, SnapshotGone, Unsupported
from nearline.vectors import as_matrix
from retrieval.embedders.endpoints import Embedders
from retrieval.protocols import metrics
from retrieval.protocols.request_validation import suggest_names
from retrieval.protocols.shard import ShardQueries
from retrieval.search.collection import ServedCollection
from retrieval.search.example_queries import build_queries
from retrieval.search.request_context import RequestContext

MAX_EF_SEARCH = 4_096
MAX_NPROBE = 65_536
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
    have none.
    """

    mode: c.SearchMode
    numbers: Sequence[int]
    queries: ShardQueries
    excluded: Mapping[int, frozenset[str]] = field(default_factory=dict)
    texts: Sequence[str] = ()


@dataclass(slots=True)
class PreparedQueries:
    """All queries of a request, ready for the shards.

    ignored: By query number, item ids that could not be used. embed_s: Seconds spent on embedding;
    None if nothing was embedded.
    """

    batches: list[QueryBatch] = field(default_factory=list)
    ignored: Mapping[int, Sequence[c.IgnoredId]] = field(default_factory=dict)
    embed_s: float | None = None


async def prepare_queries(
    collection: ServedCollection,
    embedders: Embedders,
    queries: Sequence[c.Query],
    names: Sequence[str],
    mode: c.SearchMode | None,
    context: RequestContext,
) -> PreparedQueries:
    """Turns queries into vectors and words; all texts are embedded together.

    Args:
        collection: Collection to search.
        embedders: Embed the texts.
        queries: 1..1,024 queries.
        names: Field of each query, for errors.
        mode: If None, texts are searched in the best mode that the collection supports (hybrid
            where possible) and other queries in mode dense.
        context: Records failed shards and the progress of live changes in the others.
    Raises: InvalidRequest: a query is malformed, or is not a text although the mode needs words.
        Errors of embedder and shards.
    """
    prepared = PreparedQueries()
    vectors: dict[int, NDArray[np.float32]] = {}
    texts: dict[int, str] = {}
    items: dict[int, Sequence[str]] = {}
    for number, (query, name) in enumerate(zip(queries, names, strict=True)):
        kinds = (query.text is not None) + (query.vector is not None) + bool(query.item_ids)
        if kinds != 1:
            raise InvalidRequest(
                f"{name} has {kinds} of text, vector and item ids; set exactly one", field=name
            )
        if query.text is not None:
            texts[number] = query_text(query, name)
        elif mode is c.SearchMode.LEXICAL or mode is c.SearchMode.HYBRID:
            raise InvalidRequest(
                f"{name} is not a text, and mode {mode.value} needs words; send a text, or use "
                "mode dense",
                field="options.mode",
            )
        elif query.vector is not None:
            vectors[number] = _query_vector(collection, query.vector, name)
        else:
            items[number] = query.item_ids
    text_mode = mode or _TEXT_MODES[collection.words_by_default, collection.has_model]
    if items:
        fields = {f"{names[number]}.items": ids for number, ids in items.items()}
        examples = await build_queries(collection, fields, context)
        prepared.ignored = {n: one.ignored for n, one in zip(items, examples, strict=True)}
        vectors |= {n: one.vector[None] for n, one in zip(items, examples, strict=True)}
    if texts and text_mode is not c.SearchMode.LEXICAL:
        _check_model(collection, names[next(iter(texts))])
        embedded, prepared.embed_s = await _embed(
            collection, embedders, list(texts.values()), context.deadline
        )
        vectors |= {n: row[None] for n, row in zip(texts, embedded, strict=True)}
    # A mixed request needs two batches: shards answer queries of one mode together.
    lexical = list(texts) if text_mode is not c.SearchMode.DENSE else []
    dense = [n for n in range(len(queries)) if n in vectors and n not in lexical]
    if dense:
        excluded = {place: frozenset(items[n]) for place, n in enumerate(dense) if n in items}
        matrix = _matrix(collection, [vectors[n] for n in dense])
        prepared.batches.append(
            QueryBatch(
                c.SearchMode.DENSE,
                dense,
                ShardQueries(matrix),
                excluded,
                [texts.get(number, "") for number in dense],
            )
        )
    if lexical:
        matrix = (
            _matrix(collection, [vectors[n] for n in lexical])
            if text_mode is c.SearchMode.HYBRID
            else np.empty((0, collection.dim), np.float32)
        )
        words = tuple(texts[n] for n in lexical)
        prepared.batches.append(
            QueryBatch(text_mode, lexical, ShardQueries(matrix, words), texts=words)
        )
    return prepared


def check_cost(queries: int, options: c.SearchOptions) -> None:
    """Raises InvalidRequest if a search asks for too many hits, or for too many filled groups."""
    if not 1 <= options.k <= c.MAX_K:
        raise InvalidRequest(f"k is {options.k}; 1..{c.MAX_K} is allowed", field="options.k")
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


def check_options(collection: ServedCollection, options: c.SearchOptions) -> None:
    """Validates search options for a collection.

    Raises: InvalidRequest: a value is out of range. Unsupported: the snapshot lacks the index that
        an option needs. SnapshotGone: the options name another snapshot.
    """
    if options.ef_search is not None and not 1 <= options.ef_search <= MAX_EF_SEARCH:
        raise _out_of_range("ef_search", options.ef_search, MAX_EF_SEARCH)
    if options.nprobe is not None and not 1 <= options.nprobe <= MAX_NPROBE:
        raise _out_of_range("nprobe", options.nprobe, MAX_NPROBE)
    if options.mode in (c.SearchMode.LEXICAL, c.SearchMode.HYBRID) and not collection.has_words:
        raise Unsupported(
            f"snapshot {collection.snapshot_id} of {collection.name!r} has no lexical index, so "
            f"mode {options.mode.value} cannot be served; use mode dense",
            field="options.mode",
        )
    for name in ("diversity", "dense_weight"):
        value = getattr(options, name)
        if value is not None and not 0 <= value <= 1:
            raise InvalidRequest(f"{name} is {value}; 0..1 is allowed", field=f"options.{name}")
    if options.min_score is not None and not math.isfinite(options.min_score):
        raise InvalidRequest(
            f"min_score is {options.min_score}, not a finite number; leave it unset",
            field="options.min_score",
        )
    if options.grouping is not None:
        _check_grouping(collection, options, options.grouping)
    if options.highlight is not None:
        value = options.highlight.passage_chars
        if not 1 <= value <= c.MAX_PASSAGE_CHARACTERS:
            raise _out_of_range("highlight.passage_chars", value, c.MAX_PASSAGE_CHARACTERS)
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
    if len(text) > c.MAX_QUERY_CHARACTERS:
        raise InvalidRequest(
            f"{where} has {len(text):,} characters; at most {c.MAX_QUERY_CHARACTERS:,} are "
            "allowed; search with a passage of it",
            field=where,
        )
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
        raise InvalidRequest(
            f"the vector of query {int(np.flatnonzero(squares == 0)[0])} is all zeros and has "
            "no direction; leave it out",
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
    if not 1 <= grouping.size <= c.MAX_GROUP_SIZE:
        raise _out_of_range("grouping.size", grouping.size, c.MAX_GROUP_SIZE)
    if options.diversity:
        raise InvalidRequest(
            "grouping and diversity exclude each other; leave one of them unset",
            field="options.diversity",
        )
    if grouping.field not in collection.single_valued:
        is_list = grouping.field in collection.list_valued
        problem = "holds lists" if is_list else "is not an attribute of the collection"
        raise InvalidRequest(
            f"grouping.field {grouping.field!r} {problem}; available, closest first: "
            f"{suggest_names(grouping.field, collection.single_valued)}",
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


def _out_of_range(name: str, value: int, limit: int) -> InvalidRequest:
    return InvalidRequest(f"{name} is {value}; 1..{limit} is allowed", field=f"options.{name}")


def _matrix(
    collection: ServedCollection, rows: Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    return align_to_metric(collection, rows[0] if len(rows) == 1 else np.concatenate(rows))


async def _embed(
    collection: ServedCollection, embedders: Embedders, texts: Sequence[str], deadline: float | None
) -> tuple[NDArray[np.float32], float]:
    start = time.perf_counter()
    left = None if deadline is None else deadline - asyncio.get_running_loop().time()
    vectors = await embedders.embed(texts, collection.fingerprint, left)
    spent_s = time.perf_counter() - start
    metrics.stage_seconds.labels(collection.name, "embed").observe(spent_s)
    return vectors, spent_s

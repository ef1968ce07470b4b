"""Turns queries of every kind into what shards are asked with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nearline import contract as c
from nearline.errors import InvalidRequest
from retrieval.embedders.endpoints import Embedders
from retrieval.protocols import metrics
from retrieval.protocols.shard import ShardQueries
from retrieval.search import item_lookup
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext

_MODES = {
    (True, True): c.SearchMode.HYBRID,
    (True, False): c.SearchMode.LEXICAL,
    (False, True): c.SearchMode.DENSE,
    (False, False): c.SearchMode.DENSE,
}


@dataclass(slots=True)
class QueryBatch:
    """Queries of one mode, ready for the shards.

    numbers: Places in the request. excluded: By place among `queries`: ids that the answer must
    not contain.
    """

    mode: c.SearchMode
    numbers: Sequence[int]
    queries: ShardQueries
    excluded: Mapping[int, frozenset[str]] = field(default_factory=dict)


@dataclass(slots=True)
class PreparedQueries:
    """A whole request, and what happened on the way.

    ignored: By number of the query: ids that led nowhere. embed_s: Seconds spent on embedding;
    None where nothing was.
    """

    asked: list[QueryBatch] = field(default_factory=list)
    ignored: Mapping[int, Sequence[c.IgnoredId]] = field(default_factory=dict)
    embed_s: float | None = None


async def prepare_queries(
    served: ServedCollection,
    embedders: Embedders,
    queries: Sequence[c.Query],
    names: Sequence[str],
    mode: c.SearchMode | None,
    inquiry: RequestContext,
) -> PreparedQueries:
    """Turns queries into vectors and words; texts go to the embedder together.

    Args:
        served: The collection.
        embedders: Where texts become vectors.
        queries: 1..1,024 of them.
        names: Fields that they stand in, for errors.
        mode: None: hybrid for texts where that can be served, dense for the others.
        inquiry: Told of shards that do not answer, and how far live changes are in the others.
    Raises: InvalidRequest: a query is malformed, or no text where words are needed. What embedder
        and shards raise.
    """
    asking = PreparedQueries()
    vectors: dict[int, NDArray[np.float32]] = {}
    texts: dict[int, str] = {}
    items: dict[int, Sequence[str]] = {}
    for number, (query, name) in enumerate(zip(queries, names, strict=True)):
        given = (query.text is not None) + (query.vector is not None) + bool(query.item_ids)
        if given != 1:
            raise InvalidRequest(
                f"{name} has {given} of text, vector and item ids; give exactly one", field=name
            )
        if query.text is not None:
            texts[number] = served.text(query, name)
        elif mode is c.SearchMode.LEXICAL or mode is c.SearchMode.HYBRID:
            raise InvalidRequest(
                f"{name} is no text, and mode {mode.value} needs words; send a text, or use mode "
                "dense",
                field="options.mode",
            )
        elif query.vector is not None:
            vectors[number] = served.vector(query, name)
        else:
            items[number] = query.item_ids
    text_mode = mode or _MODES[served.words_by_default, served.has_model]
    if items:
        wanted = {f"{names[number]}.items": ids for number, ids in items.items()}
        found = await item_lookup.build_queries(served, wanted, inquiry)
        asking.ignored = {n: one.ignored for n, one in zip(items, found, strict=True)}
        vectors |= {n: one.vector[None] for n, one in zip(items, found, strict=True)}
    if texts and text_mode is not c.SearchMode.LEXICAL:
        served.check_model(names[next(iter(texts))])
        embedded, asking.embed_s = await _embed(
            served, embedders, list(texts.values()), inquiry.deadline
        )
        vectors |= {n: row[None] for n, row in zip(texts, embedded, strict=True)}
    # Mixed requests are two: shards answer queries of one mode together.
    worded = list(texts) if text_mode is not c.SearchMode.DENSE else []
    plain = [n for n in range(len(queries)) if n in vectors and n not in worded]
    if plain:
        excluded = {place: frozenset(items[n]) for place, n in enumerate(plain) if n in items}
        matrix = _matrix(served, [vectors[n] for n in plain])
        asking.asked.append(QueryBatch(c.SearchMode.DENSE, plain, ShardQueries(matrix), excluded))
    if worded:
        matrix = (
            _matrix(served, [vectors[n] for n in worded])
            if text_mode is c.SearchMode.HYBRID
            else np.empty((0, served.dim), np.float32)
        )
        words = tuple(texts[n] for n in worded)
        asking.asked.append(QueryBatch(text_mode, worded, ShardQueries(matrix, words)))
    return asking


def _matrix(served: ServedCollection, rows: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return served.aligned(rows[0] if len(rows) == 1 else np.concatenate(rows))


async def _embed(
    served: ServedCollection, embedders: Embedders, texts: Sequence[str], deadline: float | None
) -> tuple[NDArray[np.float32], float]:
    start = time.perf_counter()
    left = None if deadline is None else deadline - asyncio.get_running_loop().time()
    vectors = await embedders.embed(texts, served.fingerprint, left)
    spent_s = time.perf_counter() - start
    metrics.stage_seconds.labels(served.name, "embed").observe(spent_s)
    return vectors, spent_s

"""Runs one request on one snapshot; preparation is separate, so that only the request is timed."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import NamedTuple, TypeAlias

from index_builder.releases.probes import Probe
from index_builder.releases.snapshot_loader import LoadedSnapshot
from nearline import contract as c
from nearline.errors import InvalidRequest, NearlineError
from retrieval.protocols.shard import ShardQueries
from retrieval.search import executor
from retrieval.search.queries import (
    QueryBatch,
    align_to_metric,
    check_options,
    prepare_queries,
    query_text,
)
from retrieval.search.request_context import RequestContext


class Answer(NamedTuple):
    """ids: Best first. best: The best score; None if nothing was found. seconds: Duration."""

    ids: list[str]
    best: float | None
    seconds: float


PreparedRequest: TypeAlias = Callable[[], Awaitable[Answer]]


class UnsupportedRequest(Exception):
    """A request that a snapshot cannot run through no fault of its own; the message says why."""


async def prepare_request(snapshot: LoadedSnapshot, probe: Probe) -> PreparedRequest:
    """Prepares a request: embeds its text, or looks up the vectors of its items.

    Raises: UnsupportedRequest: its vector is from a different model, or its text cannot be
        embedded.
        NearlineError: the snapshot refuses it.
    """
    if probe.query is None:
        return _prepare_list(snapshot, probe)
    served = snapshot.served
    options = probe.options
    if probe.kind != "text":
        # A text of which only the vector was recorded is sent as a vector.
        options = replace(options, mode=None)
    check_options(served, options)
    batch = await _query_batch(snapshot, probe, options)

    async def search() -> Answer:
        start = time.perf_counter()
        outcome = await executor.search(served, batch, options, RequestContext())
        seconds = time.perf_counter() - start
        hits = outcome.lists[0]
        return Answer([hit.id for hit in hits], hits[0].score if hits else None, seconds)

    return search


def _prepare_list(snapshot: LoadedSnapshot, probe: Probe) -> PreparedRequest:
    audience = probe.audience
    assert audience is not None

    async def recommend() -> Answer:
        start = time.perf_counter()
        reply = await snapshot.recommender.recommend(
            audience, probe.list_options, collection=snapshot.served.name
        )
        seconds = time.perf_counter() - start
        hits = [one.hit for one in reply.recommendations]
        return Answer([hit.id for hit in hits], hits[0].score if hits else None, seconds)

    return recommend


async def _query_batch(
    snapshot: LoadedSnapshot, probe: Probe, options: c.SearchOptions
) -> QueryBatch:
    served, query = snapshot.served, probe.query
    assert query is not None
    same_model = probe.fingerprint == served.fingerprint
    if query.vector is not None and not same_model:
        raise UnsupportedRequest("its vector is from a different model")
    embeds = (
        query.text is not None and options.mode is not c.SearchMode.LEXICAL and served.has_model
    )
    if embeds and probe.vector is not None and same_model:
        hybrid = options.mode is not c.SearchMode.DENSE and (
            served.words_by_default or options.mode is c.SearchMode.HYBRID
        )
        matrix = align_to_metric(served, probe.vector[None])
        texts = (query_text(query, "query"),) if hybrid else ()
        mode = c.SearchMode.HYBRID if hybrid else c.SearchMode.DENSE
        return QueryBatch(mode, [0], ShardQueries(matrix, texts))
    try:
        prepared = await prepare_queries(
            served, snapshot.embedders, [query], ["query"], options.mode, RequestContext()
        )
    except NearlineError as error:
        if not embeds or isinstance(error, InvalidRequest):
            raise
        raise UnsupportedRequest(
            "no embedding service of its model was given: --embedding"
        ) from error
    return prepared.batches[0]

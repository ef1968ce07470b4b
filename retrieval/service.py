"""The retrieval service: the domain object behind the wire, and by itself in embedded use."""

from __future__ import annotations

import asyncio
import difflib
import itertools
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Never

import numpy as np
from numpy.typing import NDArray

from nearline import contract as c
from nearline.errors import InvalidRequest, NearlineError, NotFound, NotReady
from nearline.snapshot import check_collection
from retrieval import examples, fanout, metrics
from retrieval.embedders import Embedders
from retrieval.merge import merge_hits
from retrieval.served import ServedCollection
from retrieval.shard import Queries, ShardHits, ShardOptions

DEFAULT_OPTIONS = c.SearchOptions()
ALL_BUT_VECTOR = frozenset(c.PayloadField) - {c.PayloadField.VECTOR}
# Kept back of the caller's time to merge and answer with what has arrived.
_RESERVE_RATIO = 0.1
_RESERVE_S = 0.02
_LIVE = c.ServedBy()
_NONE: frozenset[str] = frozenset()
_NOTHING: Mapping[int, Never] = MappingProxyType({})


class _Asked(NamedTuple):
    """Queries as vectors, (n, d) float32, with what happened on the way there.

    excluded, ignored: By query: ids that the answer must not contain, and ids that led nowhere.
    """

    vectors: NDArray[np.float32]
    excluded: Mapping[int, frozenset[str]]
    ignored: Mapping[int, Sequence[c.IgnoredId]]
    failures: Mapping[int, NearlineError]
    embed_s: float | None


class RetrievalService:
    """Finds items; a `Retriever`.

    Args:
        embedders: Where query texts become vectors.
    """

    def __init__(self, embedders: Embedders) -> None:
        self._embedders = embedders
        self._collections: dict[str, ServedCollection] = {}
        # A process-wide prefix and a counter: unique like a UUID, at a fraction of its cost.
        self._list_prefix = secrets.token_hex(6)
        self._list_numbers = itertools.count()

    @property
    def collections(self) -> Sequence[ServedCollection]:
        """The collections served, by name."""
        return [self._collections[name] for name in sorted(self._collections)]

    def serve(self, served: ServedCollection) -> None:
        """Serves a collection from now on, in place of any of that name."""
        self._collections[served.name] = served
        metrics.epoch_in_force.labels(served.name).set(served.epoch)

    async def search(
        self,
        query: c.Query,
        options: c.SearchOptions = DEFAULT_OPTIONS,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.SearchReply:
        """Finds the best items for one query; see `Retriever.search`."""
        return await self._search((query,), options, collection, timeout_s, ("query",))

    async def search_batch(
        self,
        queries: Sequence[c.Query],
        options: c.SearchOptions = DEFAULT_OPTIONS,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.SearchReply:
        """Finds the best items for many queries; see `Retriever.search_batch`."""
        if not 1 <= len(queries) <= c.MAX_BATCH:
            raise InvalidRequest(
                f"the batch has {len(queries)} queries; 1..{c.MAX_BATCH} are allowed",
                field="queries",
            )
        names = [f"queries[{number}]" for number in range(len(queries))]
        return await self._search(queries, options, collection, timeout_s, names)

    async def get_items(
        self,
        ids: Sequence[str],
        payload: frozenset[c.PayloadField] = ALL_BUT_VECTOR,
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.ItemsReply:
        """Reads items by id; see `Retriever.get_items`. No payload: all but the vector."""
        start = time.perf_counter()
        served = self._served(collection)
        examples.check_ids(ids, c.MAX_BATCH, "ids")
        deadline = _deadline(timeout_s)
        found = await examples.fetch(served, ids, payload or ALL_BUT_VECTOR, deadline)
        now = time.perf_counter()
        return c.ItemsReply(
            items=[found.items[one] for one in ids if one in found.items],
            ignored_ids=examples.ignored(served, ids, found),
            info=self._info(served, found.failures, None, now - start, now - start, listed=False),
        )

    async def _search(
        self,
        queries: Sequence[c.Query],
        options: c.SearchOptions,
        collection: str,
        timeout_s: float | None,
        names: Sequence[str],
    ) -> c.SearchReply:
        start = time.perf_counter()
        served = self._served(collection)
        if not 1 <= options.k <= c.MAX_K:
            raise InvalidRequest(f"k is {options.k}; 1..{c.MAX_K} is allowed", field="options.k")
        served.check(options)
        deadline = _deadline(timeout_s)
        asked = await self._ask(served, queries, names, deadline)
        searched = time.perf_counter()
        lists, failures = await self._lists(served, asked, options, deadline)
        failures = {**asked.failures, **failures} if asked.failures else failures
        results = [
            c.HitList(hits=hits, ignored_ids=asked.ignored.get(number, ()))
            for number, hits in enumerate(lists)
        ]
        now = time.perf_counter()
        info = self._info(served, failures, asked.embed_s, now - searched, now - start)
        return c.SearchReply(results=results, info=info)

    async def _ask(
        self,
        served: ServedCollection,
        queries: Sequence[c.Query],
        names: Sequence[str],
        deadline: float | None,
    ) -> _Asked:
        """Turns queries of every kind into vectors; texts go to the embedder together."""
        vectors: dict[int, NDArray[np.float32]] = {}
        texts: dict[int, str] = {}
        items: dict[int, Sequence[str]] = {}
        for number, (query, name) in enumerate(zip(queries, names, strict=True)):
            given = (query.text is not None) + (query.vector is not None) + bool(query.item_ids)
            if given != 1:
                raise InvalidRequest(
                    f"{name} has {given} of text, vector and item ids; give exactly one",
                    field=name,
                )
            if query.vector is not None:
                vectors[number] = served.vector(query, name)
            elif query.text is not None:
                texts[number] = served.text(query, name)
            else:
                items[number] = query.item_ids
        excluded: Mapping[int, frozenset[str]] = _NOTHING
        ignored: Mapping[int, Sequence[c.IgnoredId]] = _NOTHING
        failures: Mapping[int, NearlineError] = _NOTHING
        embed_s = None
        if items:
            wanted = {f"{names[number]}.items": ids for number, ids in items.items()}
            found, failures = await examples.as_queries(served, wanted, deadline)
            excluded = {number: frozenset(ids) for number, ids in items.items()}
            ignored = {n: one.ignored for n, one in zip(items, found, strict=True)}
            vectors |= {n: one.vector[None] for n, one in zip(items, found, strict=True)}
        if texts:
            embedded, embed_s = await self._embed(served, list(texts.values()), deadline)
            vectors |= {n: row[None] for n, row in zip(texts, embedded, strict=True)}
        rows = [vectors[number] for number in range(len(queries))]
        matrix = served.aligned(rows[0] if len(rows) == 1 else np.concatenate(rows))
        return _Asked(matrix, excluded, ignored, failures, embed_s)

    async def _embed(
        self, served: ServedCollection, texts: Sequence[str], deadline: float | None
    ) -> tuple[NDArray[np.float32], float]:
        start = time.perf_counter()
        left = None if deadline is None else deadline - asyncio.get_running_loop().time()
        vectors = await self._embedders.embed(texts, served.fingerprint, left)
        spent_s = time.perf_counter() - start
        metrics.stage_seconds.labels(served.name, "embed").observe(spent_s)
        return vectors, spent_s

    async def _lists(
        self,
        served: ServedCollection,
        asked: _Asked,
        options: c.SearchOptions,
        deadline: float | None,
    ) -> tuple[list[list[c.Hit]], Mapping[int, NearlineError]]:
        """Gives the k best per query over all shards, without the items that were asked with."""
        # The examples of a query would stand in its answer: ask for as many more, then drop them.
        ask = options.k + max(map(len, asked.excluded.values()), default=0)
        while True:
            results, failures = await self._fan_out(served, asked.vectors, options, ask, deadline)
            lists = []
            short = False
            for number in range(len(asked.vectors)):
                parts = [(shard, hits[number]) for shard, hits in results.items()]
                excluded = asked.excluded.get(number, _NONE)
                merged = merge_hits(parts, ask if excluded else options.k)
                kept = [one for one in merged if one[1].id not in excluded][: options.k]
                lists.append([_explained(*one) if options.explain else one[1] for one in kept])
                # Only chunks: several of them may belong to one example.
                more = excluded and any(len(hits.ids) == ask for _, hits in parts)
                short |= bool(more) and len(kept) < options.k
            if not short:
                return lists, failures
            ask *= 4

    async def _fan_out(
        self,
        served: ServedCollection,
        vectors: NDArray[np.float32],
        options: c.SearchOptions,
        ask: int,
        deadline: float | None,
    ) -> fanout.Answers[Sequence[ShardHits]]:
        start = time.perf_counter()
        wanted = ShardOptions(
            ask,
            level=options.level,
            payload=options.payload,
            ef_search=options.ef_search,
            nprobe=options.nprobe,
            exact=options.exact,
        )
        calls = {
            number: shard.search(served.snapshot_id, Queries(vectors), wanted, deadline)
            for number, shard in enumerate(served.shards)
        }
        answers = await fanout.gather(
            calls, deadline, collection=served.name, full=options.require_full_coverage
        )
        served.observe_search(time.perf_counter() - start)
        for number, error in answers.failures.items():
            metrics.shard_failures.labels(served.name, str(number), error.reason).inc()
        return answers

    def _served(self, collection: str) -> ServedCollection:
        served = self._collections.get(collection)
        if served is not None:
            return served
        if not self._collections:
            raise NotReady("no collection is loaded yet; wait for health to be SERVING")
        check_collection(collection)
        raise NotFound(
            f"collection {collection!r} is not served here; nearest first, there are: "
            f"{_nearest(collection, self._collections)}",
            field="collection",
        )

    def _info(
        self,
        served: ServedCollection,
        failures: Mapping[int, NearlineError],
        embed_s: float | None,
        search_s: float,
        total_s: float,
        *,
        listed: bool = True,
    ) -> c.ReplyInfo:
        if failures:
            metrics.partial_answers.labels(served.name).inc()
        return c.ReplyInfo(
            epoch=served.epoch,
            snapshot_id=served.snapshot_id,
            fingerprint=served.fingerprint,
            coverage=served.coverage(failures),
            served_by=_LIVE,
            list_id=f"{self._list_prefix}-{next(self._list_numbers):x}" if listed else "",
            embed_s=embed_s,
            search_s=search_s,
            total_s=total_s,
        )


def _deadline(timeout_s: float | None) -> float | None:
    """Gives the loop time at which to stop waiting for shards."""
    if timeout_s is None:
        return None
    reserve_s = min(_RESERVE_S, timeout_s * _RESERVE_RATIO)
    return asyncio.get_running_loop().time() + timeout_s - reserve_s


def _explained(shard: int, hit: c.Hit) -> c.Hit:
    hit.explanation = c.Explanation(dense_score=hit.score, lexical_score=None, shard=shard)
    return hit


def _nearest(name: str, known: Collection[str]) -> str:
    """Gives the known names for an error, the one most like `name` first."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return ", ".join(repr(other) for other in [*close, *sorted(set(known) - set(close))]) or "none"

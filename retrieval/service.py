"""The retrieval service: the domain object behind the wire, and by itself in embedded use."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Mapping, Sequence

from nearline import contract as c
from nearline.errors import InvalidRequest, NearlineError
from retrieval import examples, listing, metrics, searching
from retrieval.asking import ask
from retrieval.embedders import Embedders
from retrieval.life.serving import ServedCollections
from retrieval.served import ServedCollection

DEFAULT_OPTIONS = c.SearchOptions()
ALL_BUT_VECTOR = frozenset(c.PayloadField) - {c.PayloadField.VECTOR}
# Kept back of the caller's time to merge and answer with what has arrived.
_RESERVE_RATIO = 0.1
_RESERVE_S = 0.02
_LIVE = c.ServedBy()
_NO_HITS = c.HitList(hits=())


class RetrievalService:
    """Finds items; a `Retriever`.

    Args:
        embedders: Where query texts become vectors.
        collections: What is loaded; None: nothing yet.
    """

    def __init__(self, embedders: Embedders, collections: ServedCollections | None = None) -> None:
        self._embedders = embedders
        self._collections = collections or ServedCollections()
        # A process-wide prefix and a counter: unique like a UUID, at a fraction of its cost.
        self._list_prefix = secrets.token_hex(6)
        self._list_numbers = itertools.count()

    @property
    def collections(self) -> Sequence[ServedCollection]:
        """The collections served, by name."""
        return self._collections.in_force

    def serve(self, served: ServedCollection) -> None:
        """Serves a collection from now on, in place of any of that name."""
        self._collections.serve(served)

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
        examples.check_ids(ids, c.MAX_BATCH, "ids")
        deadline = _deadline(timeout_s)

        async def answer(served: ServedCollection) -> c.ItemsReply:
            found = await examples.fetch(served, ids, payload or ALL_BUT_VECTOR, deadline)
            spent_s = time.perf_counter() - start
            return c.ItemsReply(
                items=[found.items[one] for one in ids if one in found.items],
                ignored_ids=examples.ignored(served, ids, found),
                info=self._info(served, found.failures, None, spent_s, spent_s, listed=False),
            )

        return await self._collections.answer(collection, answer)

    async def list_items(
        self,
        *,
        page_size: int = 100,
        page_token: str = "",
        filter: c.Filter | None = None,
        payload: frozenset[c.PayloadField] = frozenset(),
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.ItemsPage:
        """Reads a page of items in id order; see `Retriever.list_items`."""
        start = time.perf_counter()
        deadline = _deadline(timeout_s)

        async def answer(served: ServedCollection) -> c.ItemsPage:
            page = await listing.page(
                served,
                size=page_size,
                token=page_token,
                filter=filter,
                payload=payload,
                deadline=deadline,
            )
            spent_s = time.perf_counter() - start
            info = self._info(served, {}, None, spent_s, spent_s, listed=False)
            return c.ItemsPage(items=page.items, next_page_token=page.next_page_token, info=info)

        # A list goes on with the snapshot that it began on, for as long as that is loaded.
        begun_on = listing.snapshot_of(page_token) if page_token else ""
        return await self._collections.answer(collection, answer, begun_on)

    async def count_items(
        self,
        filter: c.Filter | None = None,
        facets: Sequence[c.Facet] = (),
        *,
        collection: str = c.DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> c.CountReply:
        """Counts items and values of attributes; see `Retriever.count_items`."""
        start = time.perf_counter()
        deadline = _deadline(timeout_s)

        async def answer(served: ServedCollection) -> c.CountReply:
            total, counts, answers = await listing.count(served, filter, facets, deadline)
            spent_s = time.perf_counter() - start
            info = self._info(served, answers.failures, None, spent_s, spent_s, listed=False)
            return c.CountReply(count=total, facets=counts, info=info)

        return await self._collections.answer(collection, answer)

    async def _search(
        self,
        queries: Sequence[c.Query],
        options: c.SearchOptions,
        collection: str,
        timeout_s: float | None,
        names: Sequence[str],
    ) -> c.SearchReply:
        start = time.perf_counter()
        if not 1 <= options.k <= c.MAX_K:
            raise InvalidRequest(f"k is {options.k}; 1..{c.MAX_K} is allowed", field="options.k")
        deadline = _deadline(timeout_s)
        return await self._collections.answer(
            collection,
            lambda served: self._found(served, queries, options, names, start, deadline),
            options.snapshot_id,
        )

    async def _found(
        self,
        served: ServedCollection,
        queries: Sequence[c.Query],
        options: c.SearchOptions,
        names: Sequence[str],
        start: float,
        deadline: float | None,
    ) -> c.SearchReply:
        """Answers a search wholly from one snapshot."""
        served.check(options)
        asking = await ask(served, self._embedders, queries, names, options.mode, deadline)
        searched = time.perf_counter()
        searches = [searching.search(served, asked, options, deadline) for asked in asking.asked]
        # Almost always one; a task of its own would cost a tenth of the request.
        outcomes = [await searches[0]] if len(searches) == 1 else await asyncio.gather(*searches)
        failures = dict(asking.failures)
        results = [_NO_HITS] * len(queries)
        for asked, outcome in zip(asking.asked, outcomes, strict=True):
            failures |= outcome.failures
            for place, number in enumerate(asked.numbers):
                results[number] = c.HitList(
                    hits=outcome.lists[place],
                    ignored_ids=asking.ignored.get(number, ()),
                    plans=outcome.plans[place],
                    terms=outcome.terms[place],
                    language=served.language if outcome.terms[place] else "",
                )
        now = time.perf_counter()
        info = self._info(served, failures, asking.embed_s, now - searched, now - start)
        return c.SearchReply(results=results, info=info)

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

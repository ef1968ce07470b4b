"""The retrieval service: the domain object behind the wire, and by itself in embedded use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from nearline import contract as c
from nearline.errors import InvalidRequest
from retrieval.cache.cached_list import CacheLevel
from retrieval.embedders.endpoints import Embedders
from retrieval.protocols.request_validation import check_id
from retrieval.rollout.collections import ServedCollections
from retrieval.rollout.split import Requester
from retrieval.router.events import Observe, SearchEvent
from retrieval.router.reply_info import ReplyInfoBuilder
from retrieval.search import executor, item_lookup, listing
from retrieval.search.collection import ServedCollection
from retrieval.search.queries import QueryBatch, prepare_queries
from retrieval.search.request_context import RequestContext, context_factory
from retrieval.search.search_cache import CachedSearch, SearchCache

DEFAULT_OPTIONS = c.SearchOptions()
ALL_BUT_VECTOR = frozenset(c.PayloadField) - {c.PayloadField.VECTOR}
_NO_HITS = c.HitList(hits=())


class _Results(NamedTuple):
    """What was found, and the seconds it took to embed (None: nothing was) and to search."""

    asked: Sequence[QueryBatch]
    lists: list[c.HitList]
    embed_s: float | None
    search_s: float


class RetrievalService:
    """Finds items; a `Retriever`.

    Args:
        embedders: Where query texts become vectors.
        collections: What is loaded; None: nothing yet.
        reports: Names lists; None: its own.
        kept: Keeps answers to searches; None: nobody does.
        observe: Told of searches by one query; None: nobody is.
    """

    def __init__(
        self,
        embedders: Embedders,
        collections: ServedCollections | None = None,
        reports: ReplyInfoBuilder | None = None,
        kept: SearchCache | None = None,
        observe: Observe | None = None,
    ) -> None:
        self._embedders = embedders
        self._collections = collections or ServedCollections()
        self._reports = reports or ReplyInfoBuilder(self._collections)
        self._kept = kept
        self._observe = observe

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
        min_watermark: bytes = b"",
        timeout_s: float | None = None,
    ) -> c.ItemsReply:
        """Reads items by id; see `Retriever.get_items`. No payload: all but the vector."""
        start = time.perf_counter()
        item_lookup.check_ids(ids, c.MAX_BATCH, "ids")
        begin = context_factory(timeout_s, min_watermark)

        async def answer(served: ServedCollection) -> c.ItemsReply:
            inquiry = begin()
            found = await item_lookup.fetch_items(served, ids, payload or ALL_BUT_VECTOR, inquiry)
            spent_s = time.perf_counter() - start
            return c.ItemsReply(
                items=[found.items[one] for one in ids if one in found.items],
                ignored_ids=item_lookup.ignored_ids(served, ids, found),
                info=self._reports.info(
                    served, inquiry, search_s=spent_s, total_s=spent_s, listed=False
                ),
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
        min_watermark: bytes = b"",
        timeout_s: float | None = None,
    ) -> c.ItemsPage:
        """Reads a page of items in id order; see `Retriever.list_items`."""
        start = time.perf_counter()
        begin = context_factory(timeout_s, min_watermark)

        async def answer(served: ServedCollection) -> c.ItemsPage:
            inquiry = begin()
            page = await listing.read_page(
                served,
                size=page_size,
                token=page_token,
                filter=filter,
                payload=payload,
                inquiry=inquiry,
            )
            spent_s = time.perf_counter() - start
            info = self._reports.info(
                served, inquiry, search_s=spent_s, total_s=spent_s, listed=False
            )
            return c.ItemsPage(items=page.items, next_page_token=page.next_page_token, info=info)

        # A list goes on with the snapshot that it began on, for as long as that is loaded.
        begun_on = listing.snapshot_of_token(page_token) if page_token else ""
        return await self._collections.answer(collection, answer, begun_on)

    async def count_items(
        self,
        filter: c.Filter | None = None,
        facets: Sequence[c.Facet] = (),
        *,
        collection: str = c.DEFAULT_COLLECTION,
        min_watermark: bytes = b"",
        timeout_s: float | None = None,
    ) -> c.CountReply:
        """Counts items and values of attributes; see `Retriever.count_items`."""
        start = time.perf_counter()
        begin = context_factory(timeout_s, min_watermark)

        async def answer(served: ServedCollection) -> c.CountReply:
            inquiry = begin()
            total, counts = await listing.count_items(served, filter, facets, inquiry)
            spent_s = time.perf_counter() - start
            info = self._reports.info(
                served, inquiry, search_s=spent_s, total_s=spent_s, listed=False
            )
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
        check_id(options.unit, "options.unit")
        begin = context_factory(timeout_s, options.min_watermark, "options.min_watermark")
        return await self._collections.answer(
            collection,
            lambda served: self._found(served, queries, options, names, start, begin()),
            options.snapshot_id,
            Requester(options.unit, options.unit),
        )

    async def _found(
        self,
        served: ServedCollection,
        queries: Sequence[c.Query],
        options: c.SearchOptions,
        names: Sequence[str],
        start: float,
        inquiry: RequestContext,
    ) -> c.SearchReply:
        """Answers a search wholly from one snapshot."""
        served.check(options)
        found: tuple[_Results, RequestContext] | None = None
        if self._kept is not None and len(queries) == 1:

            async def search(anew: RequestContext) -> c.HitList:
                nonlocal found
                results = await self._results(served, queries, options, names, anew)
                found = results, anew
                return results.lists[0]

            kept = await self._kept.get(served, queries[0], options, inquiry, search)
            if kept is not None:
                reply = self._from_cache(served, inquiry, kept, start)
                self._tell(served, queries, options, None, reply)
                return reply
        # What was found for the cache and is not to be kept is the answer all the same.
        if found is None:
            found = await self._results(served, queries, options, names, inquiry), inquiry
        inquiry = found[1]
        info = self._reports.info(
            served,
            inquiry,
            embed_s=found[0].embed_s,
            search_s=found[0].search_s,
            total_s=time.perf_counter() - start,
        )
        reply = c.SearchReply(results=found[0].lists, info=info)
        self._tell(served, queries, options, found[0].asked, reply)
        return reply

    def _tell(
        self,
        served: ServedCollection,
        queries: Sequence[c.Query],
        options: c.SearchOptions,
        asked: Sequence[QueryBatch] | None,
        reply: c.SearchReply,
    ) -> None:
        """Tells who watches of a search by one query that every shard answered."""
        if self._observe is None or len(queries) != 1 or reply.info.coverage.missing_shards:
            return
        one, mark = asked[0] if asked else None, reply.info.watermark
        self._observe(
            SearchEvent(served, reply.info.arm, queries[0], options, one, reply.hits, mark)
        )

    def _from_cache(
        self, served: ServedCollection, inquiry: RequestContext, kept: CachedSearch, start: float
    ) -> c.SearchReply:
        served_by = None
        if kept.level is not CacheLevel.LIVE:
            served_by = c.ServedBy(source=c.Source.CACHE, reason=kept.level.value)
        info = self._reports.info(
            served,
            inquiry,
            total_s=time.perf_counter() - start,
            served_by=served_by,
            watermark=kept.watermark,
        )
        return c.SearchReply(results=[kept.hits], info=info)

    async def _results(
        self,
        served: ServedCollection,
        queries: Sequence[c.Query],
        options: c.SearchOptions,
        names: Sequence[str],
        inquiry: RequestContext,
    ) -> _Results:
        asking = await prepare_queries(
            served, self._embedders, queries, names, options.mode, inquiry
        )
        searched = time.perf_counter()
        searches = [executor.search(served, asked, options, inquiry) for asked in asking.asked]
        # Almost always one; a task of its own would cost a tenth of the request.
        outcomes = [await searches[0]] if len(searches) == 1 else await asyncio.gather(*searches)
        results = [_NO_HITS] * len(queries)
        for asked, outcome in zip(asking.asked, outcomes, strict=True):
            for place, number in enumerate(asked.numbers):
                results[number] = c.HitList(
                    hits=outcome.lists[place],
                    ignored_ids=asking.ignored.get(number, ()),
                    plans=outcome.plans[place],
                    terms=outcome.terms[place],
                    language=served.language if outcome.terms[place] else "",
                )
        return _Results(asking.asked, results, asking.embed_s, time.perf_counter() - searched)

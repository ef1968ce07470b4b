"""The retrieval service: finds items, behind the gRPC servicer or embedded in another process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import NamedTuple

from nearline import contract as c
from nearline.access.method_guard import current_caller
from nearline.access.tenant_ids import stored_id
from nearline.filters import both
from nearline.wire.limits import BATCH, check_count
from retrieval.cache.cached_list import CacheLevel
from retrieval.embedders.endpoints import Embedders
from retrieval.protocols.candidates import KeyedHistory
from retrieval.protocols.request_validation import check_id
from retrieval.rollout.collections import ServedCollections
from retrieval.rollout.split import Requester
from retrieval.router.events import Observe, SearchEvent
from retrieval.router.reply_info import ReplyInfoBuilder
from retrieval.search import executor, item_lookup, listing, suggestions
from retrieval.search.collection import ServedCollection
from retrieval.search.personal import Taste, check_personal
from retrieval.search.price import check_price, search_price
from retrieval.search.queries import QueryBatch, check_cost, check_options, prepare_queries
from retrieval.search.request_context import RequestContext, Visible, context_factory
from retrieval.search.search_cache import CachedSearch, SearchCache

DEFAULT_OPTIONS = c.SearchOptions()
ALL_BUT_VECTOR = frozenset(c.PayloadField) - {c.PayloadField.VECTOR, c.PayloadField.SECTION}
Popular = Callable[[str, str, int], Sequence[c.PopularQuery]]
ReadHistory = Callable[
    [ServedCollection, c.Audience, RequestContext], Coroutine[None, None, KeyedHistory]
]
_NO_HITS = c.HitList(hits=())


class _Search(NamedTuple):
    """A search of one or many queries. names: Their fields, for errors. start: When it began."""

    queries: Sequence[c.Query]
    options: c.SearchOptions
    names: Sequence[str]
    start: float


class _Results(NamedTuple):
    """Hits of a search, with the seconds for embedding (None without embedding) and searching."""

    batches: Sequence[QueryBatch]
    lists: list[c.HitList]
    embed_s: float | None
    search_s: float


class RetrievalService:
    """Finds items; a `Retriever`.

    Args:
        embedders: Embed query texts.
        collections: The collections to serve; None starts with none.
        replies: Builds the `ReplyInfo` of replies; None uses a builder of its own.
        cache: Caches search results; None disables caching.
        observe: Called with each single-query search; None disables observation.
        popular: Returns queries of a collection that begin with a text, at most so many. Optional.
        history: Reads what a user and a session did. Optional; None: no search is personal.
        visible: Says which items the caller may see. Optional; None shows all.
        price_limits: Returns the most comparisons that a search of the caller may take, each with
            whose limit it is. Optional.
    """

    def __init__(
        self,
        embedders: Embedders,
        collections: ServedCollections | None = None,
        replies: ReplyInfoBuilder | None = None,
        cache: SearchCache | None = None,
        observe: Observe | None = None,
        visible: Visible = lambda: None,
        price_limits: Callable[[], Sequence[tuple[str, int]]] = lambda: (),
        popular: Popular = lambda collection, text, limit: (),
        history: ReadHistory | None = None,
    ) -> None:
        self._history = history
        self._popular = popular
        self._visible = visible
        self._price_limits = price_limits
        self._embedders = embedders
        self._collections = collections or ServedCollections()
        self._replies = replies or ReplyInfoBuilder(self._collections)
        self._cache = cache
        self._observe = observe

    @property
    def collections(self) -> Sequence[ServedCollection]:
        """The collections served, by name."""
        return self._collections.in_force

    def serve(self, collection: ServedCollection) -> None:
        """Serves a collection from now on, replacing any of the same name."""
        self._collections.serve(collection)

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
        check_count(len(queries), "queries", BATCH)
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
        """Reads items by id; see `Retriever.get_items`. An empty payload means all but vectors."""
        start = time.perf_counter()
        item_lookup.check_ids(ids, BATCH, "ids")
        new_context = context_factory(timeout_s, min_watermark, self._visible())

        async def answer(served: ServedCollection) -> c.ItemsReply:
            context = new_context(served)
            found = await item_lookup.fetch_items(served, ids, payload or ALL_BUT_VECTOR, context)
            return c.ItemsReply(
                items=[found.items[one] for one in ids if one in found.items],
                ignored_ids=item_lookup.ignored_ids(served, ids, found),
                info=self._read_info(served, context, start),
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
        new_context = context_factory(timeout_s, min_watermark, self._visible())

        async def answer(served: ServedCollection) -> c.ItemsPage:
            context = new_context(served)
            page = await listing.read_page(
                served,
                size=page_size,
                token=page_token,
                filter=filter,
                payload=payload,
                context=context,
            )
            info = self._read_info(served, context, start)
            return c.ItemsPage(items=page.items, next_page_token=page.next_page_token, info=info)

        # A list continues on the snapshot on which it began, as long as that snapshot is loaded.
        snapshot_id = listing.snapshot_of_token(page_token) if page_token else ""
        return await self._collections.answer(collection, answer, snapshot_id)

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
        new_context = context_factory(timeout_s, min_watermark, self._visible())

        async def answer(served: ServedCollection) -> c.CountReply:
            context = new_context(served)
            total, counts = await listing.count_items(served, filter, facets, context)
            info = self._read_info(served, context, start)
            return c.CountReply(count=total, facets=counts, info=info)

        return await self._collections.answer(collection, answer)

    async def suggest(
        self,
        text: str,
        *,
        limit: int = 10,
        filter: c.Filter | None = None,
        collection: str = c.DEFAULT_COLLECTION,
        min_watermark: bytes = b"",
        timeout_s: float | None = None,
    ) -> c.SuggestReply:
        """Completes a title; see `Retriever.suggest`."""
        start = time.perf_counter()
        new_context = context_factory(timeout_s, min_watermark, self._visible())

        async def answer(served: ServedCollection) -> c.SuggestReply:
            context = new_context(served)
            found, correction = await suggestions.suggest(served, text, limit, filter, context)
            # They may name what the caller may not see, or does not want to.
            everything = filter is None and context.visible is None
            return c.SuggestReply(
                suggestions=found,
                correction=correction,
                queries=self._popular(served.name, text, limit) if everything else (),
                info=self._read_info(served, context, start),
            )

        return await self._collections.answer(collection, answer)

    def _read_info(
        self, collection: ServedCollection, context: RequestContext, start: float
    ) -> c.ReplyInfo:
        """Returns the info of a reply that lists no hits."""
        spent_s = time.perf_counter() - start
        return self._replies.info(
            collection, context, search_s=spent_s, total_s=spent_s, listed=False
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
        check_cost(len(queries), options)
        check_personal(len(queries), options)
        if (visible := self._visible()) is not None:
            # Also in the keys of caches, and in what is recorded of the search.
            options = replace(options, filter=both(options.filter, visible))
        search = _Search(queries, options, names, start)
        if options.unit:
            check_id(options.unit, "options.unit")
        unit = stored_id(current_caller(), options.unit, "options.unit")
        new_context = context_factory(
            timeout_s, options.min_watermark, visible, "options.min_watermark"
        )
        return await self._collections.answer(
            collection,
            lambda served: self._answer(served, search, new_context(served)),
            options.snapshot_id,
            Requester(options.user_id or unit, options.session_id or unit),
        )

    async def _answer(
        self, collection: ServedCollection, search: _Search, context: RequestContext
    ) -> c.SearchReply:
        """Answers a search entirely from one snapshot."""
        queries, options, _, start = search
        check_options(collection, options, context.visible)
        texts = [one.text for one in queries if one.text] if collection.has_words else ()
        price = search_price(collection.index_price, len(queries), options, texts)
        check_price(price, self._price_limits())
        found: tuple[_Results, RequestContext] | None = None
        taste = await self._taste(collection, options, context)
        # What one user sees must not reach another.
        if self._cache is not None and len(queries) == 1 and taste is None:

            async def run(cache_context: RequestContext) -> c.HitList:
                nonlocal found
                results = await self._results(collection, search, cache_context)
                found = results, cache_context
                return results.lists[0]

            cached = await self._cache.get(collection, queries[0], options, context, run)
            if cached is not None:
                reply = self._cached_reply(collection, context, cached, start)
                self._notify(collection, search, None, reply)
                return reply
        # Results computed for the cache that cannot be cached are still the answer.
        if found is None:
            found = await self._results(collection, search, context, taste), context
        results, context = found
        info = self._replies.info(
            collection,
            context,
            embed_s=results.embed_s,
            search_s=results.search_s,
            total_s=time.perf_counter() - start,
        )
        reply = c.SearchReply(results=results.lists, info=info)
        self._notify(collection, search, results.batches, reply, personal=taste is not None)
        return reply

    async def _taste(
        self, collection: ServedCollection, options: c.SearchOptions, context: RequestContext
    ) -> Taste | None:
        """Returns the taste to order hits by; None if the search is not personal, or all is new."""
        if not options.personal or self._history is None or collection.learned is None:
            return None
        audience = c.Audience(user_id=options.user_id, session_id=options.session_id)
        history = await self._history(collection, audience, context)
        return Taste(history, options.personal) if len(history.keys) else None

    def _notify(
        self,
        collection: ServedCollection,
        search: _Search,
        batches: Sequence[QueryBatch] | None,
        reply: c.SearchReply,
        *,
        personal: bool = False,
    ) -> None:
        """Notifies the observer of a single-query search that every shard answered."""
        queries, options, _, _ = search
        if self._observe is None or len(queries) != 1 or reply.info.coverage.missing_shards:
            return
        batch = batches[0] if batches else None
        if batch is not None and batch.condition is not None:
            options = replace(options, filter=both(options.filter, batch.condition))
        info = reply.info
        shown = reply.hits, info.watermark, info.list_id, personal
        self._observe(SearchEvent(collection, info.arm, queries[0], options, batch, *shown))

    def _cached_reply(
        self,
        collection: ServedCollection,
        context: RequestContext,
        cached: CachedSearch,
        start: float,
    ) -> c.SearchReply:
        served_by = None
        if cached.level is not CacheLevel.LIVE:
            served_by = c.ServedBy(source=c.Source.CACHE, reason=cached.level.value)
        info = self._replies.info(
            collection,
            context,
            total_s=time.perf_counter() - start,
            served_by=served_by,
            watermark=cached.watermark,
        )
        return c.SearchReply(results=[cached.hits], info=info)

    async def _results(
        self,
        collection: ServedCollection,
        search: _Search,
        context: RequestContext,
        taste: Taste | None = None,
    ) -> _Results:
        queries, options, names, _ = search
        prepared = await prepare_queries(
            collection, self._embedders, queries, names, options, context
        )
        if prepared.words_only and options.min_score is not None:
            # Scores of words are on another scale.
            options = replace(options, min_score=None)
            context.words_only += "; min_score is not applied"
        start = time.perf_counter()
        batches = prepared.batches
        searches = [
            executor.search(
                collection,
                batch,
                options,
                context,
                request_queries=len(queries),
                embedders=self._embedders,
                taste=taste,
            )
            for batch in batches
        ]
        # There is almost always one search; a separate task would cost a tenth of the request.
        outcomes = [await searches[0]] if len(searches) == 1 else await asyncio.gather(*searches)
        lists = [_NO_HITS] * len(queries)
        for batch, outcome in zip(batches, outcomes, strict=True):
            for place, number in enumerate(batch.numbers):
                lists[number] = c.HitList(
                    hits=outcome.lists[place],
                    ignored_ids=prepared.ignored.get(number, ()),
                    # They count the documents of everybody.
                    plans=outcome.plans[place] if context.visible is None else (),
                    terms=outcome.terms[place] if context.visible is None else (),
                    language=collection.language if outcome.terms[place] else "",
                )
        return _Results(batches, lists, prepared.embed_s, time.perf_counter() - start)

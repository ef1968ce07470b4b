"""Reads of the client for all services: each includes the writes of the same client."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Iterable, Sequence

from nearline import contract as c
from nearline.clients.arguments import converts_arguments
from nearline.clients.retrieval import ALL_BUT_VECTOR, DEFAULT_LIST, DEFAULT_OPTIONS, pages
from nearline.clients.service_clients import ServiceClients, with_fields


@converts_arguments
class ClientReads(ServiceClients):
    """Methods of `AsyncClient` that read items."""

    async def search(
        self,
        query: c.QueryLike,
        k: int | None = None,
        *,
        filter: c.FilterLike | None = None,
        mode: c.SearchMode | str | None = None,
        payload: c.PayloadLike | None = None,
        options: c.SearchOptions = DEFAULT_OPTIONS,
        page_token: str = "",
        collection: str | None = None,
        timeout_s: float | None = None,
    ) -> c.SearchReply:
        """Finds the best items for a text, a vector, or the items of a `Query`.

        Args:
            query: The query.
            k: Number of hits, 1..10000. Optional; None takes that of `options`, 10.
            filter: Which items may be found. Optional.
            mode: "dense", "lexical" or "hybrid". Optional; None leaves it to the service.
            payload: Parts of items to return. Optional; None takes titles and texts.
            options: Everything else; what is given by name counts more.
            page_token: `next_page_token` of the page before, for the hits after it.
            collection: Optional; None takes that of the client.
            timeout_s: Time limit in seconds. Optional; None takes 10.
        Raises: See `Retriever.search`.
        """
        wanted = with_fields(options, {"k": k, "filter": filter, "mode": mode, "payload": payload})
        name = self._name(collection)

        async def read(watermark: bytes) -> c.SearchReply:
            least = dataclasses.replace(wanted, min_watermark=watermark)
            return await self.retrieval.search(
                query, least, page_token=page_token, collection=name, timeout_s=timeout_s
            )

        return await self._writes.read(name, wanted.min_watermark, read)

    async def search_batch(
        self,
        queries: Sequence[c.QueryLike],
        k: int | None = None,
        *,
        filter: c.FilterLike | None = None,
        mode: c.SearchMode | str | None = None,
        payload: c.PayloadLike | None = None,
        options: c.SearchOptions = DEFAULT_OPTIONS,
        collection: str | None = None,
        timeout_s: float | None = None,
    ) -> c.SearchReply:
        """Finds the best items for each of 1..1024 queries, from one snapshot; see `search`."""
        wanted = with_fields(options, {"k": k, "filter": filter, "mode": mode, "payload": payload})
        name = self._name(collection)

        async def read(watermark: bytes) -> c.SearchReply:
            least = dataclasses.replace(wanted, min_watermark=watermark)
            return await self.retrieval.search_batch(
                queries, least, collection=name, timeout_s=timeout_s
            )

        return await self._writes.read(name, wanted.min_watermark, read)

    async def recommend(
        self,
        user_id: c.Id = "",
        n: int | None = None,
        *,
        item_ids: Iterable[c.Id] = (),
        session_id: str = "",
        surface: str = c.DEFAULT_SURFACE,
        filter: c.FilterLike | None = None,
        payload: c.PayloadLike | None = None,
        options: c.RecommendOptions = DEFAULT_LIST,
        collection: str | None = None,
        timeout_s: float | None = None,
    ) -> c.RecommendReply:
        """Recommends a list for a user, a session, the page of an item, or anybody.

        Args:
            user_id: A known user; empty for none.
            n: Number of items, 1..1000. Optional; None takes that of `options`, 20.
            item_ids: Items to recommend others like.
            session_id: Session of a visitor; empty for none.
            surface: The place where the list is shown.
            filter: Which items may be listed. Optional.
            payload: Parts of items to return. Optional; None takes titles and texts.
            options: Everything else; what is given by name counts more.
            collection: Optional; None takes that of the client.
            timeout_s: Time limit in seconds. Optional; None takes 10.
        Raises: See `Recommender.recommend`.
        """
        wanted = with_fields(options, {"n": n, "filter": filter, "payload": payload})
        name = self._name(collection)
        audience = c.Audience(
            user_id=user_id, session_id=session_id, item_ids=item_ids, surface=surface
        )

        async def read(watermark: bytes) -> c.RecommendReply:
            least = dataclasses.replace(wanted, min_watermark=watermark)
            return await self.retrieval.recommend(
                audience, least, collection=name, timeout_s=timeout_s
            )

        return await self._writes.read(name, wanted.min_watermark, read)

    async def get(
        self,
        ids: Iterable[c.Id],
        payload: c.PayloadLike = ALL_BUT_VECTOR,
        *,
        min_watermark: bytes = b"",
        collection: str | None = None,
        timeout_s: float | None = None,
    ) -> c.ItemsReply:
        """Returns items by id, without their vectors; missing ids are in `ignored_ids`."""
        name, wanted = self._name(collection), list(ids)

        async def read(watermark: bytes) -> c.ItemsReply:
            return await self.retrieval.get_items(
                wanted, payload, collection=name, min_watermark=watermark, timeout_s=timeout_s
            )

        return await self._writes.read(name, min_watermark, read)

    async def items(
        self,
        filter: c.FilterLike | None = None,
        payload: c.PayloadLike = ALL_BUT_VECTOR,
        *,
        min_watermark: bytes = b"",
        collection: str | None = None,
    ) -> AsyncGenerator[c.Item, None]:
        """Yields all items, or those that match, in id order, from one snapshot."""
        name, fields = self._name(collection), frozenset(payload)

        async def page(token: str) -> c.ItemsPage:
            async def read(watermark: bytes) -> c.ItemsPage:
                return await self.retrieval.list_items(
                    page_size=c.MAX_PAGE,
                    page_token=token,
                    filter=filter,
                    payload=fields,
                    collection=name,
                    min_watermark=watermark,
                )

            return await self._writes.read(name, min_watermark, read)

        async for item in pages(page):
            yield item

    async def suggest(
        self,
        text: str,
        *,
        limit: int = 10,
        filter: c.FilterLike | None = None,
        min_watermark: bytes = b"",
        collection: str | None = None,
        timeout_s: float | None = None,
    ) -> c.SuggestReply:
        """Completes what somebody types with titles, and corrects words that are in no item.

        Example: `client.suggest("nick dr").suggestions[0].title` is "Nick Drake".
        """
        name = self._name(collection)

        async def read(watermark: bytes) -> c.SuggestReply:
            return await self.retrieval.suggest(
                text,
                limit=limit,
                filter=filter,
                collection=name,
                min_watermark=watermark,
                timeout_s=timeout_s,
            )

        return await self._writes.read(name, min_watermark, read)

    async def count(
        self,
        filter: c.FilterLike | None = None,
        facets: Sequence[c.Facet | str] = (),
        *,
        min_watermark: bytes = b"",
        collection: str | None = None,
        timeout_s: float | None = None,
    ) -> c.CountReply:
        """Counts items, and values of the attributes in `facets`."""
        name = self._name(collection)

        async def read(watermark: bytes) -> c.CountReply:
            return await self.retrieval.count_items(
                filter, facets, collection=name, min_watermark=watermark, timeout_s=timeout_s
            )

        return await self._writes.read(name, min_watermark, read)

"""Documents of a framework in a collection: what the stores of all frameworks have in common."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Final

import numpy as np

from nearline import contract as c, filters as f
from nearline.clients.admin import NO_ATTRIBUTES
from nearline.clients.arguments import converter
from nearline.clients.client import AsyncClient
from nearline.clients.frames import upsert_batch
from nearline.errors import AlreadyExists, InvalidRequest, NotFound
from nearline.integrations.metadata import (
    MAX_FIELDS,
    METADATA,
    NO_VECTOR,
    OWN,
    fit_filter,
    infer_kinds,
    to_attributes,
)
from nearline.integrations.stored_documents import (
    StoredDocument,
    dim_of,
    from_hit,
    from_item,
    fused,
)
from nearline.store.snapshot import kind_name

_BATCH: Final = 256
# Hits of each list that are merged.
_FUSED: Final = 100
_EVERYTHING: Final = f.All()
_PAYLOAD: Final = frozenset({c.PayloadField.TEXT, c.PayloadField.ATTRIBUTES})
_WITH_VECTOR: Final = _PAYLOAD | {c.PayloadField.VECTOR}
_to_filter: Final = converter(c.FilterLike | None, "filter")


class CollectionStore:
    """The documents of one collection, which the first write creates if it does not exist.

    Until then, reads find nothing. Metadata that `attributes` does not name becomes attributes of
    the kinds that the first documents have.

    Args:
        client: The client; its calls are awaited where it was made.
        collection: Name of the collection.
        embeds: Whether Nearline embeds the texts, so that documents need no vectors.
        attributes: Kinds of attributes by name, such as "int" or "string[]", for a new collection.
        language: Of stemmer and stop words, for a new collection; empty takes English.
        dim: Numbers in a vector, for a new collection; 0 takes that of the first document.
        optional_vectors: Whether documents may have no vector, so that only words find them; for a
            new collection.
    """

    def __init__(
        self,
        client: AsyncClient,
        collection: str,
        *,
        embeds: bool,
        attributes: Mapping[str, str] = NO_ATTRIBUTES,
        language: str = "",
        dim: int = 0,
        optional_vectors: bool = False,
    ) -> None:
        self.collection = collection
        self.embeds = embeds
        self._client = client
        own = {NO_VECTOR: "bool"} if optional_vectors else {}
        self._declared = {**own, **attributes}
        self._language = language
        self._kinds: Mapping[str, str] | None = None
        self._dim = dim

    async def write(self, documents: Sequence[StoredDocument]) -> None:
        """Adds or replaces documents; returns when they are durable.

        Raises: InvalidRequest: a document is refused; the others of its batch are stored.
        """
        if not documents:
            return
        kinds = await self._opened(documents)
        # Of two with the same id, the later one counts.
        items = [self._item(one, kinds) for one in {one.id: one for one in documents}.values()]
        for start in range(0, len(items), _BATCH):
            await self._upsert(items[start : start + _BATCH])

    async def update(
        self,
        condition: f.Filter | None,
        change: Callable[[StoredDocument], StoredDocument],
    ) -> int:
        """Changes metadata of all documents that match; returns their number.

        change: Returns a document with other metadata; none may go.
        """
        kinds = await self.kinds()
        if kinds is None:
            return 0
        changed = [change(one) async for one in self.documents(condition)]
        items = []
        for one in changed:
            attributes = to_attributes(one.metadata, kinds, one.record)
            # If attributes hold all metadata now, they are no longer stored as JSON.
            items.append(c.Item(id=one.id, attributes={METADATA: None, **attributes}))
        for start in range(0, len(items), _BATCH):
            await self._upsert(items[start : start + _BATCH], only_attributes=True)
        return len(items)

    async def delete(self, ids: Sequence[str]) -> None:
        """Deletes documents by id; ids that do not exist are not an error."""
        if await self.kinds() is None:
            return
        for start in range(0, len(ids), c.MAX_BATCH):
            await self._client.delete(ids[start : start + c.MAX_BATCH], collection=self.collection)

    async def delete_matching(self, condition: f.Filter | None = None) -> int:
        """Deletes the documents that match, or all; returns their number."""
        kinds = await self.kinds()
        if kinds is None:
            return 0
        fitting = await self._fit(condition, kinds)
        wanted = _EVERYTHING if fitting is None else fitting
        return (await self._client.delete_matching(wanted, collection=self.collection)).deleted

    async def drop(self) -> None:
        """Removes the collection for good, if there is one."""
        self._kinds = None
        try:
            await self._client.collections.drop(self.collection)
        except NotFound:
            pass

    async def get(self, ids: Sequence[str], *, vectors: bool = False) -> list[StoredDocument]:
        """Returns the documents with these ids, in their order; others are left out."""
        if await self.kinds() is None:
            return []
        payload = _WITH_VECTOR if vectors else _PAYLOAD
        found: list[StoredDocument] = []
        for start in range(0, len(ids), c.MAX_BATCH):
            reply = await self._client.get(
                ids[start : start + c.MAX_BATCH], payload, collection=self.collection
            )
            found += map(from_item, reply.items)
        return found

    async def documents(
        self, condition: f.Filter | None = None, *, vectors: bool = False
    ) -> AsyncGenerator[StoredDocument, None]:
        """Yields the documents that match, or all, in id order."""
        kinds = await self.kinds()
        if kinds is None:
            return
        wanted = await self._fit(condition, kinds)
        payload = _WITH_VECTOR if vectors else _PAYLOAD
        async for item in self._client.items(wanted, payload, collection=self.collection):
            yield from_item(item)

    async def count(self, condition: f.Filter | None = None) -> int:
        """Returns the number of documents that match, or of all."""
        kinds = await self.kinds()
        if kinds is None:
            return 0
        wanted = await self._fit(condition, kinds)
        return (await self._client.count(wanted, collection=self.collection)).count

    async def distinct(
        self, names: Sequence[str], condition: f.Filter | None = None
    ) -> dict[str, int]:
        """Returns how many values attributes have in the documents that match, or in all."""
        kinds = await self.kinds()
        if kinds is None or not names:
            return dict.fromkeys(names, 0)
        wanted = await self._fit(condition, kinds)
        reply = await self._client.count(wanted, list(names), collection=self.collection)
        return {one.field: one.distinct for one in reply.facets}

    async def search(
        self,
        text: str | None,
        vector: Sequence[float] | None,
        k: int,
        *,
        mode: c.SearchMode | str = c.SearchMode.DENSE,
        filter: c.FilterLike | None = None,
        options: c.SearchOptions | None = None,
        vectors: bool = False,
    ) -> list[StoredDocument]:
        """Returns the k best documents, best first, with their scores.

        Args:
            text: The query; needed by mode "lexical", by "hybrid", and where Nearline embeds.
            vector: The query's vector (d,), unless Nearline embeds.
            k: Number of documents, 1..10000.
            mode: "dense", "lexical" or "hybrid". A hybrid search with the framework's vectors
                merges the two lists by reciprocal ranks; their scores are sums of 1 / (60 + rank).
            filter: Which documents may be found. Optional.
            options: All other options. Optional.
            vectors: Whether documents come with their vectors.
        Raises: InvalidRequest: the text or the vector is missing. See `Retriever.search`.
        """
        kinds = await self.kinds()
        if kinds is None:
            return []
        wanted = await self._options(k, filter, options, kinds)
        mode = c.SearchMode(mode)
        if self.embeds or mode is c.SearchMode.LEXICAL:
            return await self._one_search(text, mode, wanted, vectors)
        if mode is c.SearchMode.DENSE:
            return await self._one_search(vector, mode, self._with_vectors(wanted, kinds), vectors)
        both = dataclasses.replace(wanted, k=max(k, _FUSED))
        found = await asyncio.gather(
            self._one_search(vector, c.SearchMode.DENSE, self._with_vectors(both, kinds), vectors),
            self._one_search(text, c.SearchMode.LEXICAL, both, vectors),
        )
        weight = 0.5 if wanted.dense_weight is None else wanted.dense_weight
        return fused(*found, weight)[:k]

    async def search_vector(
        self,
        vector: Sequence[float],
        k: int,
        *,
        filter: c.FilterLike | None = None,
        options: c.SearchOptions | None = None,
    ) -> list[StoredDocument]:
        """Returns the k documents nearest to a vector (d,); see `search`."""
        kinds = await self.kinds()
        if kinds is None:
            return []
        wanted = self._with_vectors(await self._options(k, filter, options, kinds), kinds)
        return await self._one_search(vector, c.SearchMode.DENSE, wanted, False)

    async def metadata_kinds(self) -> dict[str, str]:
        """Returns the kinds of the metadata that filters can use, by name."""
        return {name: kind for name, kind in (await self.kinds() or {}).items() if name not in OWN}

    async def kinds(self) -> Mapping[str, str] | None:
        """Returns the kinds of the collection's attributes; None if there is no collection."""
        if self._kinds is None:
            try:
                await self._read_kinds()
            except NotFound:
                return None
        return self._kinds

    async def _options(
        self,
        k: int,
        filter: c.FilterLike | None,
        options: c.SearchOptions | None,
        kinds: Mapping[str, str],
    ) -> c.SearchOptions:
        condition = await self._fit(_to_filter(filter), kinds)
        # Frameworks pass on questions, whose quotes and hyphens are no syntax.
        wanted = options or c.SearchOptions(plain_text=True)
        return dataclasses.replace(wanted, k=k, filter=condition)

    async def _one_search(
        self,
        query: str | Sequence[float] | None,
        mode: c.SearchMode,
        options: c.SearchOptions,
        vectors: bool,
    ) -> list[StoredDocument]:
        if query is None:
            needed = "text" if self.embeds or mode is c.SearchMode.LEXICAL else "vector"
            raise InvalidRequest(
                f"the query has no {needed}; a {mode.value} search of collection "
                f"{self.collection!r} needs one",
                field="query",
            )
        # Where Nearline embeds, a hit has a chunk of the text; documents have the whole of it.
        payload = frozenset[c.PayloadField]() if self.embeds else _PAYLOAD
        if vectors and not self.embeds:
            payload = _WITH_VECTOR
        wanted = dataclasses.replace(options, mode=mode, payload=payload)
        reply = await self._client.search(query, options=wanted, collection=self.collection)
        if not self.embeds:
            return [from_hit(hit) for hit in reply.hits]
        scores = {hit.id: hit.score for hit in reply.hits}
        found = await self.get(list(scores))
        return [dataclasses.replace(one, score=scores[one.id]) for one in found]

    async def _opened(self, documents: Sequence[StoredDocument]) -> Mapping[str, str]:
        """Returns the kinds of the attributes; creates the collection if there is none."""
        kinds = await self.kinds()
        if kinds is not None:
            return kinds
        inferred = infer_kinds(
            (one.metadata for one in documents), MAX_FIELDS - len(self._declared)
        )
        self._dim = 0 if self.embeds else self._dim or dim_of(documents)
        try:
            await self._client.collections.create(
                self.collection,
                dim=self._dim,
                language=self._language,
                attributes={**inferred, **self._declared},
            )
        except AlreadyExists:
            # Another writer was first.
            pass
        return await self._read_kinds()

    async def _read_kinds(self) -> Mapping[str, str]:
        found = await self._client.collections.get(self.collection)
        self._dim = found.dim
        self._kinds = {one.name: kind_name(one) for one in found.attributes}
        return self._kinds

    async def _fit(self, condition: f.Filter | None, kinds: Mapping[str, str]) -> f.Filter | None:
        if condition is None:
            return None
        try:
            return fit_filter(condition, kinds)
        except InvalidRequest:
            # A compaction may have found more attributes since.
            return fit_filter(condition, await self._read_kinds())

    def _with_vectors(self, options: c.SearchOptions, kinds: Mapping[str, str]) -> c.SearchOptions:
        """Returns options that find no document whose vector stands for none."""
        if NO_VECTOR not in kinds:
            return options
        real = f.Not(f.Equals(NO_VECTOR, True))
        return dataclasses.replace(options, filter=f.both(options.filter, real))

    def _item(self, document: StoredDocument, kinds: Mapping[str, str]) -> c.Item:
        attributes = to_attributes(document.metadata, kinds, document.record)
        vector = None if self.embeds else document.vector
        if vector is None and not self.embeds:
            if NO_VECTOR not in kinds:
                raise InvalidRequest(
                    f"document {document.id[:200]!r} has no vector; collection "
                    f"{self.collection!r} needs one of {self._dim} numbers",
                    field="vector",
                )
            vector = np.eye(1, self._dim, dtype=np.float32)[0]
            attributes[NO_VECTOR] = True
        return c.Item(id=document.id, text=document.text, attributes=attributes, vector=vector)

    async def _upsert(self, items: Sequence[c.Item], *, only_attributes: bool = False) -> None:
        reply = await upsert_batch(
            self._client.upsert, items, only_attributes=only_attributes, collection=self.collection
        )
        for one in reply.results:
            if one.outcome is c.WriteOutcome.REJECTED:
                raise InvalidRequest(f"document {one.id[:200]!r}: {one.message}", field="items")

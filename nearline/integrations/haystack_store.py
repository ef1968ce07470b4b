"""The document store for Haystack."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

from nearline import contract as c
from nearline.clients.admin import NO_ATTRIBUTES
from nearline.clients.blocking_calls import blocking, client_loop, on_client_loop
from nearline.clients.client import AsyncClient
from nearline.errors import InvalidRequest
from nearline.integrations.collection_store import CollectionStore
from nearline.integrations.extras import missing_extra
from nearline.integrations.haystack_conversion import (
    filter_errors,
    read_filters,
    to_haystack,
    to_stored,
)
from nearline.integrations.stored_documents import StoredDocument

try:
    from haystack import default_from_dict, default_to_dict
    from haystack.dataclasses import Document
    from haystack.document_stores.errors import DuplicateDocumentError
    from haystack.document_stores.types import DuplicatePolicy
    from haystack.utils import Secret
except ImportError as error:
    raise missing_extra("haystack", error) from error

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Filters = Mapping[str, Any]
_TOKEN = Secret.from_env_var("NEARLINE_TOKEN", strict=False)


def _on_client_loop(
    method: Callable[_P, Coroutine[Any, Any, _R]],
) -> Callable[_P, Coroutine[Any, Any, _R]]:
    """See `on_client_loop`; the errors of filters are Haystack's."""
    run = on_client_loop(method)

    @functools.wraps(method)
    async def called(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with filter_errors():
            return await run(*args, **kwargs)

    return called


class NearlineDocumentStore:
    """The documents of a collection; the first write creates it if it does not exist.

        store = NearlineDocumentStore("127.0.0.1:7700", "docs", attributes={"lang": "string"})

    Async methods use the same connection, so that each reads what the other wrote. Certificates are
    taken from NEARLINE_TLS_CA and others.

    Args:
        address: "host:port" of the router.
        collection: Name of the collection.
        embedding_dim: Numbers in the documents' embeddings. 0: Nearline embeds the texts, and the
            documents' own embeddings are not stored. A document without an embedding is found by
            its words alone.
        attributes: Kinds of metadata by name, such as "string", "int" or "string[]", for a new
            collection. Filters can use these, and what the first documents have.
        language: Of stemmer and stop words, for a new collection; empty takes English.
        token: API key or JSON Web Token.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:7700",
        collection: str = "haystack",
        *,
        embedding_dim: int = 0,
        attributes: Mapping[str, str] = NO_ATTRIBUTES,
        language: str = "",
        token: Secret | None = _TOKEN,
    ) -> None:
        self.address = address
        self.collection = collection
        self.embedding_dim = embedding_dim
        self.attributes = dict(attributes)
        self.language = language
        self.token = token
        self._client: AsyncClient | None = None
        self._opened: CollectionStore | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings of the store."""
        settings: dict[str, Any] = default_to_dict(
            self,
            address=self.address,
            collection=self.collection,
            embedding_dim=self.embedding_dim,
            attributes=self.attributes,
            language=self.language,
            token=self.token,
        )
        return settings

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> NearlineDocumentStore:
        """Returns the store that has these settings."""
        settings = dict(data["init_parameters"])
        if isinstance(settings.get("token"), dict):
            settings["token"] = Secret.from_dict(settings["token"])
        store: NearlineDocumentStore = default_from_dict(cls, {**data, "init_parameters": settings})
        return store

    def close(self) -> None:
        """Closes the connection; the next call opens another one."""
        client, self._client, self._opened = self._client, None, None
        if client is not None:
            client_loop.run(client.close())

    @_on_client_loop
    async def count_documents_async(self) -> int:
        """Returns the number of documents."""
        return await self._store.count()

    @_on_client_loop
    async def count_documents_by_filter_async(self, filters: _Filters) -> int:
        """Returns the number of documents that match. Raises: FilterError."""
        return await self._store.count(read_filters(filters))

    @_on_client_loop
    async def count_unique_metadata_by_filter_async(
        self, filters: _Filters, metadata_fields: Sequence[str]
    ) -> dict[str, int]:
        """Returns how many values metadata have in documents that match. Raises: FilterError."""
        names = [one.removeprefix("meta.") for one in metadata_fields]
        return await self._store.distinct(names, read_filters(filters))

    @_on_client_loop
    async def get_metadata_fields_info_async(self) -> dict[str, dict[str, str]]:
        """Returns the metadata that filters can use, and their types."""
        kinds = await self._store.metadata_kinds()
        return {name: {"type": kind} for name, kind in kinds.items()}

    @_on_client_loop
    async def filter_documents_async(self, filters: _Filters | None = None) -> list[Document]:
        """Returns the documents that match, or all, by id. Raises: FilterError."""
        found = self._store.documents(read_filters(filters), vectors=bool(self.embedding_dim))
        return [to_haystack(one) async for one in found]

    @_on_client_loop
    async def write_documents_async(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """Writes documents; returns how many when they are durable.

        Args:
            documents: The documents.
            policy: NONE and FAIL write nothing if one of them exists, SKIP leaves those out, and
                OVERWRITE replaces them. Only OVERWRITE is safe from another writer between the
                look-up and the write.
        Raises: DuplicateDocumentError. ValueError: not a list of documents.
        """
        if not isinstance(documents, list) or not all(
            isinstance(one, Document) for one in documents
        ):
            raise ValueError("documents is no list of Haystack's documents; pass one")
        stored = {one.id: to_stored(one) for one in documents}
        if policy is not DuplicatePolicy.OVERWRITE:
            taken = {one.id for one in await self._store.get(list(stored))}
            if policy is not DuplicatePolicy.SKIP and (taken or len(stored) < len(documents)):
                named = repr(next(iter(taken))[:200]) if taken else "given twice"
                raise DuplicateDocumentError(
                    f"a document exists already ({named}); use DuplicatePolicy.OVERWRITE or SKIP"
                )
            stored = {id: one for id, one in stored.items() if id not in taken}
        await self._store.write(list(stored.values()))
        return len(documents) if policy is DuplicatePolicy.OVERWRITE else len(stored)

    @_on_client_loop
    async def delete_documents_async(self, document_ids: list[str]) -> None:
        """Deletes documents by id; ids that do not exist are not an error."""
        await self._store.delete(document_ids)

    @_on_client_loop
    async def delete_all_documents_async(self, recreate_collection: bool = False) -> None:
        """Deletes all documents. recreate_collection: Drop the collection, too."""
        if recreate_collection:
            await self._store.drop()
        else:
            await self._store.delete_matching()

    @_on_client_loop
    async def delete_by_filter_async(self, filters: _Filters) -> int:
        """Deletes the documents that match; returns how many. Raises: FilterError."""
        condition = read_filters(filters)
        if condition is None:
            raise InvalidRequest("filters is empty; delete_all_documents() deletes all documents")
        return await self._store.delete_matching(condition)

    @_on_client_loop
    async def update_by_filter_async(self, filters: _Filters, meta: Mapping[str, Any]) -> int:
        """Sets metadata of the documents that match; returns how many. Raises: FilterError."""

        def changed(stored: StoredDocument) -> StoredDocument:
            document = to_haystack(stored)
            return to_stored(replace(document, meta={**document.meta, **meta}))

        return await self._store.update(read_filters(filters), changed)

    @_on_client_loop
    async def search_async(
        self,
        query: str | None = None,
        query_embedding: list[float] | None = None,
        *,
        mode: c.SearchMode | str = c.SearchMode.HYBRID,
        filters: _Filters | None = None,
        top_k: int = 10,
    ) -> list[Document]:
        """Returns the best documents, best first; the retrievers call it.

        Args:
            query: The query's text; needed for words, and where Nearline embeds.
            query_embedding: The query's embedding, where Nearline does not embed.
            mode: "dense", "lexical" or "hybrid".
            filters: Which documents may be found. Optional.
            top_k: Number of documents, 0..10000.
        Raises: FilterError. InvalidRequest: what the mode needs is missing.
        """
        if not top_k:
            return []
        found = await self._store.search(
            query, query_embedding, top_k, mode=mode, filter=read_filters(filters)
        )
        return [to_haystack(one, scored=True) for one in found]

    count_documents = blocking(count_documents_async)
    count_documents_by_filter = blocking(count_documents_by_filter_async)
    count_unique_metadata_by_filter = blocking(count_unique_metadata_by_filter_async)
    get_metadata_fields_info = blocking(get_metadata_fields_info_async)
    filter_documents = blocking(filter_documents_async)
    write_documents = blocking(write_documents_async)
    delete_documents = blocking(delete_documents_async)
    delete_all_documents = blocking(delete_all_documents_async)
    delete_by_filter = blocking(delete_by_filter_async)
    update_by_filter = blocking(update_by_filter_async)
    search = blocking(search_async)

    @property
    def _store(self) -> CollectionStore:
        """The documents; connects when it is first needed, so that pipelines can be described."""
        if self._opened is None:
            token = self.token.resolve_value() if self.token is not None else None
            self._client = AsyncClient(self.address, token=token)
            self._opened = CollectionStore(
                self._client,
                self.collection,
                embeds=not self.embedding_dim,
                attributes=self.attributes,
                language=self.language,
                dim=self.embedding_dim,
                optional_vectors=bool(self.embedding_dim),
            )
        return self._opened

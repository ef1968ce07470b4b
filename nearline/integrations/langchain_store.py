"""The vector store for LangChain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

from nearline import contract as c
from nearline.clients.admin import NO_ATTRIBUTES
from nearline.clients.blocking import Client
from nearline.clients.blocking_calls import async_object, blocking, client_loop, on_client_loop
from nearline.errors import InvalidRequest
from nearline.integrations.collection_store import CollectionStore
from nearline.integrations.extras import missing_extra
from nearline.integrations.langchain_conversion import (
    LangChainFilter,
    diverse,
    read_filter,
    stored_texts,
    to_langchain,
    with_scores,
)

try:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore
except ImportError as error:
    raise missing_extra("langchain", error) from error


class NearlineVectorStore(VectorStore):
    """The documents of a collection; the first write creates it if it does not exist.

        store = NearlineVectorStore(Client("127.0.0.1:7700"), "docs", attributes={"lang": "string"})

    Filters are texts (`"year >= 2000 AND lang = en"`), dicts of Nearline, or LangChain's
    `{"lang": "en", "year": {"$gte": 2000}}`. The async methods are LangChain's own: they run these
    in threads.

    Args:
        client: The client.
        collection: Name of the collection.
        embedding: Embeds texts and queries. Optional; if None, Nearline embeds them.
        attributes: Kinds of metadata by name, such as "string", "int" or "string[]", for a new
            collection. Filters can use these, and what the first documents have.
        language: Of stemmer and stop words, for a new collection; empty takes English.
        mode: "dense", "hybrid" or "lexical": how texts are searched for unless a call says it.
    """

    def __init__(
        self,
        client: Client,
        collection: str,
        embedding: Embeddings | None = None,
        *,
        attributes: Mapping[str, str] = NO_ATTRIBUTES,
        language: str = "",
        mode: c.SearchMode | str = c.SearchMode.DENSE,
    ) -> None:
        self._embedding = embedding
        self._mode = c.SearchMode(mode)
        self._store = CollectionStore(
            async_object(client),
            collection,
            embeds=embedding is None,
            attributes=attributes,
            language=language,
        )

    @property
    def embeddings(self) -> Embeddings | None:
        """The embeddings; None if Nearline embeds."""
        return self._embedding

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        client: Client,
        collection: str,
        ids: list[str] | None = None,
        attributes: Mapping[str, str] = NO_ATTRIBUTES,
        language: str = "",
    ) -> Self:
        """Returns a store to which these texts were added; see `NearlineVectorStore`."""
        store = cls(client, collection, embedding, attributes=attributes, language=language)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int | None = None,
    ) -> list[str]:
        """Adds or replaces texts; returns their ids when they are durable.

        Args:
            texts: The texts.
            metadatas: Metadata of each. Optional.
            ids: Id of each. Optional; None makes one.
            batch_size: For LangChain's `index`; batches have a size of their own.
        Raises: InvalidRequest: numbers of texts, metadata and ids differ; a text is refused.
        """
        known = list(texts)
        vectors = self._embedding.embed_documents(known) if self._embedding and known else None
        documents = stored_texts(known, metadatas, ids, vectors)
        client_loop.run(self._store.write(documents))
        return [one.id for one in documents]

    @blocking
    async def delete(
        self, ids: Sequence[str] | None = None, *, filter: LangChainFilter | None = None
    ) -> bool:
        """Deletes documents by id, those that match a filter, or all if neither is set."""
        if ids is not None and filter is not None:
            raise InvalidRequest("ids and filter are both set; delete by one of them")
        if ids is not None:
            await self._store.delete(ids)
        else:
            await self._store.delete_matching(read_filter(filter))
        return True

    @on_client_loop
    async def adelete_collection(self) -> None:
        """Removes the collection for good; the next write creates it again."""
        await self._store.drop()

    delete_collection = blocking(adelete_collection)

    @blocking
    async def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Returns the documents with these ids; others are left out."""
        return [to_langchain(one) for one in await self._store.get(ids)]

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        *,
        filter: LangChainFilter | None = None,
        mode: c.SearchMode | str | None = None,
        options: c.SearchOptions | None = None,
    ) -> list[tuple[Document, float]]:
        """Returns the documents most similar to a text, best first, and their scores.

        Args:
            query: The text.
            k: Number of documents, 1..10000.
            filter: Which documents may be found. Optional.
            mode: "dense", "hybrid" or "lexical". Optional; None takes that of the store.
            options: All other options of Nearline, such as `diversity`. Optional.
        Returns: Scores: cosines in mode "dense", larger is better.
        """
        found = self._store.search(
            query,
            self._vector(query, mode),
            k,
            mode=mode or self._mode,
            filter=read_filter(filter),
            options=options,
        )
        return with_scores(client_loop.run(found))

    def similarity_search(
        self,
        query: str,
        k: int = 4,
        *,
        filter: LangChainFilter | None = None,
        mode: c.SearchMode | str | None = None,
        options: c.SearchOptions | None = None,
    ) -> list[Document]:
        """See `similarity_search_with_score`."""
        found = self.similarity_search_with_score(
            query, k, filter=filter, mode=mode, options=options
        )
        return [document for document, _ in found]

    @blocking
    async def similarity_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        *,
        filter: LangChainFilter | None = None,
        options: c.SearchOptions | None = None,
    ) -> list[Document]:
        """Returns the documents most similar to a vector (d,), best first."""
        found = await self._store.search_vector(
            embedding, k, filter=read_filter(filter), options=options
        )
        return [to_langchain(one) for one in found]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: LangChainFilter | None = None,
        mode: c.SearchMode | str | None = None,
    ) -> list[Document]:
        """Returns documents that are similar to a text and differ from each other.

        Args:
            query: The text.
            k: Number of documents, 1..10000.
            fetch_k: Not used: Nearline chooses the number of candidates.
            lambda_mult: 1 is similarity alone, 0 is difference alone.
            filter: Which documents may be found. Optional.
            mode: See `similarity_search_with_score`.
        """
        return self.similarity_search(
            query, k, filter=filter, mode=mode, options=diverse(lambda_mult)
        )

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: LangChainFilter | None = None,
    ) -> list[Document]:
        """See `max_marginal_relevance_search`; embedding: (d,)."""
        return self.similarity_search_by_vector(
            embedding, k, filter=filter, options=diverse(lambda_mult)
        )

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        # Of cosines, the same as of other stores whose scores are.
        return lambda score: (score + 1.0) / 2.0

    def _vector(self, query: str, mode: c.SearchMode | str | None) -> list[float] | None:
        if self._embedding is None or c.SearchMode(mode or self._mode) is c.SearchMode.LEXICAL:
            return None
        vector: list[float] = self._embedding.embed_query(query)
        return vector

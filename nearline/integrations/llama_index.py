"""A vector store and a retriever for LlamaIndex: `pip install 'nearline[llama-index]'`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nearline import contract as c, filters as f
from nearline.clients.admin import NO_ATTRIBUTES
from nearline.clients.blocking import Client
from nearline.clients.blocking_calls import async_object, blocking, on_client_loop
from nearline.errors import InvalidRequest
from nearline.integrations.collection_store import CollectionStore
from nearline.integrations.extras import missing_extra
from nearline.integrations.llama_index_conversion import (
    NODE_ID,
    REF_DOC_ID,
    query_filter,
    query_options,
    read_filters,
    to_document,
    to_node,
    to_result,
)
from nearline.integrations.metadata import one_of

try:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle
    from llama_index.core.vector_stores.types import (
        BasePydanticVectorStore,
        MetadataFilters,
        VectorStoreQuery,
        VectorStoreQueryMode,
        VectorStoreQueryResult,
    )
except ImportError as error:
    raise missing_extra("llama-index", error) from error


class NearlineVectorStore(BasePydanticVectorStore):
    """The nodes of a collection; the first write creates it if it does not exist.

        store = NearlineVectorStore(Client("127.0.0.1:7700"), "docs", attributes={"lang": "string"})
        index = VectorStoreIndex.from_vector_store(store, embed_model=...)

    Async methods use the connection of the client, too, so that each reads what the other wrote.

    Args:
        client: The client.
        collection: Name of the collection; it is for nodes alone.
        embeds: Whether Nearline embeds the texts. Embeddings of nodes are then ignored, and queries
            need none.
        attributes: Kinds of metadata by name, such as "string", "int" or "string[]", for a new
            collection. Filters can use these, and what the first nodes have.
        language: Of stemmer and stop words, for a new collection; empty takes English.
    """

    stores_text: bool = True
    is_embedding_query: bool = True
    collection: str
    embeds: bool = False

    _client: Client = PrivateAttr()
    _store: CollectionStore = PrivateAttr()

    def __init__(
        self,
        client: Client,
        collection: str,
        *,
        embeds: bool = False,
        attributes: Mapping[str, str] = NO_ATTRIBUTES,
        language: str = "",
    ) -> None:
        super().__init__(collection=collection, embeds=embeds, is_embedding_query=not embeds)
        self._client = client
        self._store = CollectionStore(
            async_object(client),
            collection,
            embeds=embeds,
            attributes={**attributes, NODE_ID: "string", REF_DOC_ID: "string"},
            language=language,
        )

    @classmethod
    def class_name(cls) -> str:
        """Returns the name of the class in serialised settings."""
        return "NearlineVectorStore"

    @property
    def client(self) -> Client:
        """The client."""
        return self._client

    @on_client_loop
    async def async_add(self, nodes: Sequence[BaseNode]) -> list[str]:
        """Adds or replaces nodes; returns their ids when they are durable.

        Raises: InvalidRequest: a node is refused, or has no embedding although Nearline does not
            embed.
        """
        documents = [to_document(one) for one in nodes]
        await self._store.write(documents)
        return [one.id for one in documents]

    @on_client_loop
    async def adelete(self, ref_doc_id: str) -> None:
        """Deletes all nodes of a document."""
        await self._store.delete_matching(f.Equals(REF_DOC_ID, ref_doc_id))

    @on_client_loop
    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> None:
        """Deletes the nodes with these ids that match the filters.

        Raises: InvalidRequest: neither is set; `clear` deletes all.
        """
        condition = read_filters(filters)
        if node_ids is None and condition is None:
            raise InvalidRequest("neither node_ids nor filters is set; clear() deletes all nodes")
        if condition is None:
            await self._store.delete(node_ids or [])
        else:
            await self._store.delete_matching(_among(condition, node_ids))

    @on_client_loop
    async def aclear(self) -> None:
        """Deletes all nodes; the collection stays."""
        await self._store.delete_matching()

    @on_client_loop
    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Returns the nodes with these ids that match the filters; all if neither is set."""
        condition = read_filters(filters)
        if node_ids is not None and condition is None:
            return [to_node(one) for one in await self._store.get(node_ids)]
        wanted = condition if condition is None else _among(condition, node_ids)
        return [to_node(one) async for one in self._store.documents(wanted)]

    @on_client_loop
    async def aquery(self, query: VectorStoreQuery) -> VectorStoreQueryResult:
        """Returns the best nodes of a query, best first.

        Modes: default, mmr, hybrid (also semantic_hybrid; `alpha` weighs the vectors, 0..1), sparse
        and text_search.
        Raises: Unsupported: another mode, or an operator that has no equivalent. InvalidRequest:
            the embedding or the text that the mode needs is missing.
        """
        mode, options = query_options(query)
        k = query.similarity_top_k
        if mode is c.SearchMode.HYBRID and query.hybrid_top_k is not None:
            k = query.hybrid_top_k
        if mode is c.SearchMode.LEXICAL and query.sparse_top_k is not None:
            k = query.sparse_top_k
        found = await self._store.search(
            query.query_str,
            query.query_embedding,
            k,
            mode=mode,
            filter=query_filter(query),
            options=options,
        )
        return to_result(found)

    add = blocking(async_add)
    delete = blocking(adelete)
    delete_nodes = blocking(adelete_nodes)
    clear = blocking(aclear)
    get_nodes = blocking(aget_nodes)
    query = blocking(aquery)


class NearlineRetriever(BaseRetriever):
    """Retrieves nodes of a store without an index.

        retriever = NearlineRetriever(store, similarity_top_k=8, mode="hybrid")

    Args:
        store: The store.
        similarity_top_k: Number of nodes, 1..10000.
        mode: See `NearlineVectorStore.query`.
        filters: Which nodes may be found. Optional.
        embed_model: Embeds queries. Not needed where Nearline embeds, nor for words.
        alpha: Weight of the vectors in a hybrid search, 0..1. Optional.
    """

    def __init__(
        self,
        store: NearlineVectorStore,
        *,
        similarity_top_k: int = 4,
        mode: VectorStoreQueryMode | str = VectorStoreQueryMode.DEFAULT,
        filters: MetadataFilters | None = None,
        embed_model: BaseEmbedding | None = None,
        alpha: float | None = None,
    ) -> None:
        super().__init__()
        self._store = store
        self._top_k = similarity_top_k
        self._mode = VectorStoreQueryMode(mode)
        self._filters = filters
        self._embed_model = embed_model
        self._alpha = alpha

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        embedding = query_bundle.embedding
        if embedding is None and self._embed_model is not None:
            embedding = self._embed_model.get_query_embedding(query_bundle.query_str)
        return _scored(self._store.query(self._query(query_bundle, embedding)))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        embedding = query_bundle.embedding
        if embedding is None and self._embed_model is not None:
            embedding = await self._embed_model.aget_query_embedding(query_bundle.query_str)
        return _scored(await self._store.aquery(self._query(query_bundle, embedding)))

    def _query(self, bundle: QueryBundle, embedding: list[float] | None) -> VectorStoreQuery:
        return VectorStoreQuery(
            query_embedding=embedding,
            query_str=bundle.query_str,
            similarity_top_k=self._top_k,
            mode=self._mode,
            filters=self._filters,
            alpha=self._alpha,
        )


def _among(condition: f.Filter, node_ids: list[str] | None) -> f.Filter:
    """Returns a filter that matches those of some nodes that match another one."""
    return condition if node_ids is None else f.All(condition, one_of(NODE_ID, node_ids))


def _scored(result: VectorStoreQueryResult) -> list[NodeWithScore]:
    return [
        NodeWithScore(node=node, score=score)
        for node, score in zip(result.nodes or (), result.similarities or (), strict=True)
    ]

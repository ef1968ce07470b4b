"""LlamaIndex over a running service: its index, its query modes, its filters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from nearline import Client, Item
from nearline.errors import InvalidRequest, Unsupported
from tests.redis_server import needs_redis

pytest.importorskip(
    "llama_index.core", reason="llama-index-core is not installed: make test-integrations"
)

from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from nearline.integrations.llama_index import NearlineRetriever, NearlineVectorStore

pytestmark = [pytest.mark.service, needs_redis]
VECTORS = {"a": [1.0, 0.0], "a2": [1.0, 0.01], "b": [0.6, 0.8], "c": [0.0, 1.0]}
METADATA: dict[str, dict[str, Any]] = {
    "a": {"lang": "en", "year": 2000, "tags": ["x", "y"]},
    "a2": {"lang": "de", "year": 2010, "tags": ["y"], "made": "2024-05-01"},
    "b": {"lang": "en", "year": 2020, "made": "2025-05-01", "deep": {"n": [None]}},
    "c": {"lang": "fr"},
}


class Letters(BaseEmbedding):
    """Embeds the keys of `VECTORS`."""

    def _get_text_embedding(self, text: str) -> list[float]:
        return VECTORS[text.split()[-1]]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def nodes() -> list[TextNode]:
    return [
        TextNode(
            id_=name,
            text=name,
            metadata=METADATA[name],
            embedding=vector,
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"doc-{name[0]}")},
        )
        for name, vector in VECTORS.items()
    ]


@pytest.fixture(scope="module", name="store")
def give_store(client: Client) -> NearlineVectorStore:
    """Returns a store that no test changes."""
    store = NearlineVectorStore(client, "llama")
    assert store.add(nodes()) == list(VECTORS)
    return store


def ids(found: Sequence[Any] | None) -> list[str]:
    return [one.node_id for one in found or ()]


def test_an_empty_store_finds_nothing(client: Client, collection: str) -> None:
    store = NearlineVectorStore(client, collection)
    assert store.query(VectorStoreQuery(query_embedding=[1.0, 0.0])).nodes == []
    assert store.get_nodes() == []
    store.delete("doc-a")
    store.delete_nodes(["a"])
    store.clear()


def test_nodes_come_back_as_they_were(store: NearlineVectorStore) -> None:
    expected = {one.node_id: one.model_copy(update={"embedding": None}) for one in nodes()}
    assert {one.node_id: one for one in store.get_nodes()} == expected
    assert store.get_nodes(["c", "nope", "a"]) == [expected["c"], expected["a"]]


@pytest.mark.parametrize(
    ("mode", "more", "found"),
    [
        ("default", {}, ["a", "a2"]),
        ("mmr", {"mmr_threshold": 0.3}, ["a", "c"]),
        ("sparse", {}, ["c"]),
        ("text_search", {}, ["c"]),
        ("hybrid", {"alpha": 1.0}, ["a", "a2"]),
        ("hybrid", {"alpha": 0.0}, ["c", "a"]),
        ("semantic_hybrid", {"hybrid_top_k": 1, "alpha": 0.1}, ["c"]),
        ("default", {"doc_ids": ["doc-b", "doc-c"]}, ["b", "c"]),
        ("default", {"node_ids": ["c"]}, ["c"]),
    ],
)
async def test_modes(
    store: NearlineVectorStore, mode: str, more: dict[str, Any], found: list[str]
) -> None:
    query = VectorStoreQuery(
        query_embedding=[1.0, 0.0],
        query_str="c",
        similarity_top_k=2,
        mode=VectorStoreQueryMode(mode),
        **more,
    )
    result = store.query(query)
    assert result.ids == ids(result.nodes) == found
    assert result.similarities == sorted(result.similarities or (), reverse=True) or mode == "mmr"
    assert (await store.aquery(query)).ids == found


def test_other_modes_are_refused(store: NearlineVectorStore) -> None:
    with pytest.raises(Unsupported, match="mode is svm; use default"):
        store.query(VectorStoreQuery(query_embedding=[1.0, 0.0], mode=VectorStoreQueryMode.SVM))
    with pytest.raises(InvalidRequest, match="the query has no vector"):
        store.query(VectorStoreQuery(query_str="a"))


@pytest.mark.parametrize(
    ("key", "operator", "value", "found"),
    [
        ("lang", "==", "en", "a b"),
        ("lang", "!=", "en", "a2 c"),
        ("year", ">", 2000, "a2 b"),
        ("year", ">=", 2000, "a a2 b"),
        ("year", "<", 2010, "a"),
        ("year", "<=", 2010, "a a2"),
        ("lang", "in", ["de", "fr"], "a2 c"),
        ("year", "nin", [2000, 2010], "b c"),
        ("lang", "in", [], ""),
        ("tags", "any", ["x", "z"], "a"),
        ("tags", "all", ["x", "y"], "a"),
        ("tags", "contains", "y", "a a2"),
        ("tags", "is_empty", None, "b c"),
        ("made", ">", "2024-06-01", "b"),
        ("made", "==", "2024-05-01", "a2"),
    ],
)
def test_filters(
    store: NearlineVectorStore, key: str, operator: str, value: Any, found: str
) -> None:
    one = MetadataFilter(key=key, value=value, operator=FilterOperator(operator))
    assert sorted(ids(store.get_nodes(filters=MetadataFilters(filters=[one])))) == found.split()


def test_filters_are_combined(store: NearlineVectorStore) -> None:
    english = MetadataFilter(key="lang", value="en")
    late = MetadataFilter(key="year", value=2005, operator=FilterOperator.GT)
    for condition, found in (("and", "b"), ("or", "a a2 b"), ("not", "c")):
        filters = MetadataFilters(filters=[english, late], condition=FilterCondition(condition))
        assert sorted(ids(store.get_nodes(filters=filters))) == found.split()
        inner = MetadataFilters(filters=[filters], condition=FilterCondition.NOT)
        assert sorted(ids(store.get_nodes(filters=inner))) == sorted(
            set(VECTORS) - {*found.split()}
        )


@pytest.mark.parametrize(
    ("operator", "value", "error"),
    [
        ("text_match", "e", Unsupported),
        ("==", None, InvalidRequest),
        ("in", "en", InvalidRequest),
        ("==", 5, InvalidRequest),
    ],
)
def test_filters_without_an_equivalent_are_refused(
    store: NearlineVectorStore, operator: str, value: Any, error: type[Exception]
) -> None:
    one = MetadataFilter(key="lang", value=value, operator=FilterOperator(operator))
    with pytest.raises(error):
        store.get_nodes(filters=MetadataFilters(filters=[one]))


async def test_nodes_are_deleted_by_document_id_and_filter(client: Client, collection: str) -> None:
    store = NearlineVectorStore(client, collection)
    store.add(nodes())
    store.delete("doc-a")
    assert ids(store.get_nodes()) == ["b", "c"]
    await store.async_add(nodes())
    english = MetadataFilters(filters=[MetadataFilter(key="lang", value="en")])
    await store.adelete_nodes(["a", "a2", "c"], english)
    assert ids(await store.aget_nodes()) == ["a2", "b", "c"]
    store.delete_nodes(["c"])
    assert ids(await store.aget_nodes(["a2", "b", "c"], english)) == ["b"]
    with pytest.raises(InvalidRequest, match=r"clear\(\) deletes all"):
        store.delete_nodes()
    await store.adelete("doc-a")
    await store.aclear()
    assert store.get_nodes() == []


async def test_an_index_reads_and_writes_through_the_store(client: Client, collection: str) -> None:
    storage = StorageContext.from_defaults(vector_store=NearlineVectorStore(client, collection))
    documents = [
        Document(
            text=name, doc_id=name, excluded_embed_metadata_keys=["lang"], metadata={"lang": lang}
        )
        for name, lang in zip(VECTORS, ("en", "de", "en", "fr"), strict=True)
    ]
    index = VectorStoreIndex.from_documents(
        documents, storage_context=storage, embed_model=Letters(), transformations=[]
    )
    retriever = index.as_retriever(similarity_top_k=2)
    assert [one.text for one in retriever.retrieve("b")] == ["b", "c"]
    index.delete_ref_doc("b")
    assert [one.text for one in await retriever.aretrieve("b")] == ["c", "a2"]
    again = VectorStoreIndex.from_vector_store(
        NearlineVectorStore(client, collection), embed_model=Letters()
    )
    hybrid = again.as_retriever(similarity_top_k=1, vector_store_query_mode="hybrid")
    assert [one.metadata for one in hybrid.retrieve("a")] == [{"lang": "en"}]


async def test_the_retriever_needs_no_embedding_where_nearline_embeds(
    client: Client, collection: str
) -> None:
    store = NearlineVectorStore(client, collection, embeds=True)
    store.add([TextNode(id_=name, text=name) for name in ("w1 w2", "w3 w4")])
    for mode in ("default", "hybrid", "sparse", "mmr"):
        retriever = NearlineRetriever(store, similarity_top_k=1, mode=mode)
        [first], [second] = retriever.retrieve("w3 w4"), await retriever.aretrieve("w3 w4")
        assert first.node_id == second.node_id == "w3 w4"
        assert first.score == pytest.approx(second.score)


def test_the_retriever_embeds_with_a_model(store: NearlineVectorStore) -> None:
    english = MetadataFilters(filters=[MetadataFilter(key="lang", value="en")])
    retriever = NearlineRetriever(store, embed_model=Letters(), filters=english)
    assert ids(retriever.retrieve("b")) == ["b", "a"]


def test_an_item_of_somebody_else_is_reported(client: Client, collection: str) -> None:
    store = NearlineVectorStore(client, collection)
    client.collections.create(collection, dim=2)
    client.upsert([Item(id="x", vector=[1.0, 0.0])], collection=collection)
    with pytest.raises(InvalidRequest, match="was not written by LlamaIndex"):
        store.get_nodes()

"""LangChain's own suites for vector stores and retrievers, and what they do not cover."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest

from nearline import Client
from nearline.errors import InvalidRequest
from tests.redis_server import needs_redis

pytest.importorskip(
    "langchain_tests", reason="langchain-tests is not installed: make test-integrations"
)

from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import (
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)

from nearline.integrations.langchain import NearlineRetriever, NearlineVectorStore

pytestmark = [pytest.mark.service, needs_redis]
TEXTS = ["w1 w2", "w3 w4", "w5 w6", "w7 w8"]
METADATA: list[dict[str, Any]] = [
    {"lang": "en", "year": 2000, "tags": ["a", "b"]},
    {"lang": "de", "year": 2010, "tags": ["b"], "made": "2024-05-01"},
    {"lang": "en", "year": 2020.5, "made": "2025-05-01", "source": {"page": 3, "file": None}},
    {"lang": "fr"},
]


class TestStandardVectorStore(VectorStoreIntegrationTests):
    """With vectors of the framework."""

    @pytest.fixture()
    def vectorstore(self, client: Client, collection: str) -> Iterator[VectorStore]:
        yield NearlineVectorStore(client, collection, self.get_embeddings())


class TestStandardRetriever(RetrieversIntegrationTests):
    """Over texts that Nearline embeds."""

    @pytest.fixture(autouse=True)
    def give_store(self, client: Client, collection: str) -> None:
        self.store = NearlineVectorStore(client, collection)
        self.store.add_texts(TEXTS)

    @property
    def retriever_constructor(self) -> type[NearlineRetriever]:
        return NearlineRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"store": self.store}

    @property
    def retriever_query_example(self) -> str:
        return "w1"


@pytest.fixture(scope="module", name="store")
def give_store(client: Client) -> NearlineVectorStore:
    """Returns a store whose documents a to d no test changes."""
    store = NearlineVectorStore(client, "langchain")
    store.add_texts(TEXTS, METADATA, ids=list("abcd"))
    return store


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        ("lang = en AND year > 2000", "c"),
        ({"lang": "en"}, "ac"),
        ({"lang": ["de", "fr"]}, "bd"),
        ({"year": {"$gte": 2000, "$lt": 2015}}, "ab"),
        ({"$or": [{"lang": "fr"}, {"year": 2000}]}, "ad"),
        ({"$not": {"lang": {"$in": ["en", "de"]}}}, "d"),
        ({"lang": {"$ne": "en"}, "year": {"$exists": True}}, "b"),
        ({"tags": "b"}, "ab"),
        ({"made": {"$gt": "2024-06-01"}}, "c"),
        ({"made": "2024-05-01"}, "b"),
        ({"source.page": 3}, "c"),
        ({"any": [{"field": "lang", "equals": "de"}]}, "b"),
    ],
)
def test_filters_are_texts_dicts_of_metadata_or_of_nearline(
    store: NearlineVectorStore, filter: Any, found: str
) -> None:
    documents = store.similarity_search("w1", k=10, filter=filter)
    assert sorted(str(one.id) for one in documents) == list(found)


@pytest.mark.parametrize(
    "filter",
    [{"lang": {"$like": "e"}}, {"$nor": []}, {"$and": "lang"}, {"$not": 3}, "lang >", {"nope": 1}],
)
def test_a_filter_that_cannot_be_read_is_refused(store: NearlineVectorStore, filter: Any) -> None:
    with pytest.raises(InvalidRequest):
        store.similarity_search("w1", filter=filter)


def test_metadata_come_back_as_they_were(client: Client, collection: str) -> None:
    metadata = [
        *METADATA,
        {"page": 1, "empty": [], "none": None, "deep": {"a": [{"b": 1.5}]}, "x.y": 2},
        {"page": "iv", "at": datetime(2024, 5, 1, 12, tzinfo=UTC), "naive": datetime(2024, 5, 1)},
        {"page": 2.0, "on": True, "big": 1 << 70, "mixed": [1, "a"]},
    ]
    store = NearlineVectorStore(client, collection)
    ids = store.add_texts(["w1"] * len(metadata), metadata)
    assert [one.metadata for one in store.get_by_ids(ids)] == metadata


async def test_async_methods_see_what_the_others_wrote(store: NearlineVectorStore) -> None:
    await store.aadd_texts(["w9"], [{"lang": "it"}], ids=["e"])
    assert [one.id for one in store.get_by_ids(["e"])] == ["e"]
    found = await store.asimilarity_search("w9", k=10, filter={"lang": "it"})
    assert [(one.id, one.page_content) for one in found] == [("e", "w9")]
    assert await store.adelete(filter="lang = it")
    assert await store.aget_by_ids(["e", "a"]) == store.get_by_ids(["a"])


def test_modes_and_scores(client: Client, collection: str) -> None:
    embeddings = VectorStoreIntegrationTests.get_embeddings()
    store = NearlineVectorStore.from_texts(
        TEXTS, embeddings, METADATA, client=client, collection=collection, ids=list("abcd")
    )
    [(best, score), *_] = store.similarity_search_with_score("w3 w4")
    assert (best.id, round(score, 4)) == ("b", 1.0)
    assert [one.id for one in store.similarity_search("w5", mode="lexical")] == ["c"]
    hybrid = store.similarity_search_with_score("w7 w8", mode="hybrid")
    assert hybrid[0][0].id == "d" and hybrid[0][1] == pytest.approx(1 / 61)
    assert len(hybrid) == 4
    [(best, relevance), *_] = store.similarity_search_with_relevance_scores("w3 w4", k=2)
    assert (best.id, round(relevance, 4)) == ("b", 1.0)
    vector = embeddings.embed_query("w1 w2")
    assert store.similarity_search_by_vector(vector, k=1)[0].id == "a"


def test_hits_have_the_whole_text_of_a_document(client: Client, collection: str) -> None:
    text = " ".join(f"w{at % 90}" for at in range(900)) + ". w99 w99 w99."
    store = NearlineVectorStore(client, collection, mode="hybrid")
    store.add_texts([text, "w1"], ids=["long", "short"])
    assert store.similarity_search("w99", k=1)[0] == Document(id="long", page_content=text)


def test_marginal_relevance_prefers_what_differs(client: Client, collection: str) -> None:
    class Plane:
        vectors: ClassVar = {"q": [1.0, 0.1], "a": [1.0, 0.0], "a2": [1.0, 0.01], "b": [0.6, 0.8]}

        def embed_query(self, text: str) -> list[float]:
            return self.vectors[text]

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [self.vectors[text] for text in texts]

    store: Any = NearlineVectorStore(client, collection, Plane())
    store.add_texts(["a", "a2", "b"])
    assert {one.page_content for one in store.similarity_search("q", 2)} == {"a", "a2"}
    diverse = store.max_marginal_relevance_search("q", 2, lambda_mult=0.3)
    assert [one.page_content for one in diverse] == ["a2", "b"]
    by_vector = store.max_marginal_relevance_search_by_vector([1.0, 0.1], 2, lambda_mult=0.3)
    assert by_vector == diverse
    retriever = store.as_retriever(search_type="mmr", search_kwargs={"k": 2, "lambda_mult": 0.3})
    assert retriever.invoke("q") == diverse


def test_langchain_indexes_into_it(client: Client, collection: str) -> None:
    store = NearlineVectorStore(client, collection)
    records = InMemoryRecordManager(collection)
    records.create_schema()
    documents = [Document(page_content=text, metadata={"source": text}) for text in TEXTS]
    options: dict[str, Any] = {"cleanup": "full", "source_id_key": "source"}
    assert index(documents, records, store, **options, key_encoder="sha256")["num_added"] == 4
    again = index(documents[:3], records, store, **options, key_encoder="sha256")
    assert (again["num_skipped"], again["num_deleted"]) == (3, 1)
    assert len(store.similarity_search("w1", k=10)) == 3


def test_everything_and_the_collection_are_deleted(client: Client, collection: str) -> None:
    store = NearlineVectorStore(client, collection)
    store.add_texts(TEXTS)
    assert store.delete()
    assert store.similarity_search("w1") == []
    store.delete_collection()
    store.add_texts(["w1"])
    assert len(store.similarity_search("w1")) == 1


def test_texts_and_metadata_must_be_as_many(store: NearlineVectorStore) -> None:
    with pytest.raises(InvalidRequest, match="metadatas has 1 entries for 2 texts"):
        store.add_texts(["w1", "w2"], [{}])
    with pytest.raises(InvalidRequest, match="ids and filter are both set"):
        store.delete(["a"], filter="lang = en")

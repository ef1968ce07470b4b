"""Haystack's own suites for document stores, and what they do not cover."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nearline.errors import InvalidRequest
from tests.redis_server import needs_redis

pytest.importorskip("haystack", reason="haystack-ai is not installed: make test-integrations")

from haystack import Document, Pipeline
from haystack.dataclasses import ByteStream, SparseEmbedding
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy, FilterPolicy
from haystack.errors import FilterError
from haystack.testing import document_store as suites, document_store_async as async_suites
from haystack.utils import Secret

from nearline.integrations.haystack import (
    NearlineDocumentStore,
    NearlineEmbeddingRetriever,
    NearlineRetriever,
)

pytestmark = [pytest.mark.service, needs_redis]
# What no document has when the collection is created.
META = {"updated": "bool", "extra_field": "string", "featured": "bool"}


@pytest.fixture(name="document_store")
def give_document_store(address: str, collection: str) -> Iterator[NearlineDocumentStore]:
    """Returns an empty store for documents with embeddings, and without."""
    store = NearlineDocumentStore(address, collection, embedding_dim=768, attributes=META)
    yield store
    store.close()


class Unordered:
    """Documents come back by id, and their embeddings with length 1."""

    @staticmethod
    def assert_documents_are_equal(received: list[Document], expected: list[Document]) -> None:
        assert plain(received) == plain(expected)
        for one, other in zip(by_id(received), by_id(expected), strict=True):
            if other.embedding is None:
                assert one.embedding is None
            else:
                unit = np.array(other.embedding) / np.linalg.norm(other.embedding)
                assert np.allclose(one.embedding, unit, atol=1e-6)


def by_id(documents: list[Document]) -> list[Document]:
    return sorted(documents, key=lambda one: one.id)


def plain(documents: list[Document]) -> list[dict[str, Any]]:
    return [{**one.to_dict(flatten=False), "embedding": None} for one in by_id(documents)]


class TestStandardStore(
    Unordered,
    suites.DocumentStoreBaseExtendedTests,
    suites.CountDocumentsByFilterTest,
    suites.CountUniqueMetadataByFilterTest,
    suites.GetMetadataFieldsInfoTest,
):
    """The suites of the blocking methods."""

    @pytest.fixture
    def document_store(self, document_store: NearlineDocumentStore) -> NearlineDocumentStore:
        return document_store

    def test_write_documents(self, document_store: NearlineDocumentStore) -> None:
        documents = [Document(content="one"), Document(content="two")]
        assert document_store.write_documents(documents) == 2
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents(documents[:1])


class TestStandardAsyncStore(
    Unordered,
    async_suites.CountDocumentsAsyncTest,
    async_suites.CountDocumentsByFilterAsyncTest,
    async_suites.CountUniqueMetadataByFilterAsyncTest,
    async_suites.DeleteAllAsyncTest,
    async_suites.DeleteByFilterAsyncTest,
    async_suites.DeleteDocumentsAsyncTest,
    async_suites.FilterDocumentsAsyncTest,
    async_suites.GetMetadataFieldsInfoAsyncTest,
    async_suites.UpdateByFilterAsyncTest,
    async_suites.WriteDocumentsAsyncTest,
):
    """The suites of the async methods."""

    async def test_write_documents_async(self, document_store: NearlineDocumentStore) -> None:
        assert await document_store.write_documents_async([Document(content="one")]) == 1
        with pytest.raises(DuplicateDocumentError):
            await document_store.write_documents_async([Document(content="one")])


def documents() -> list[Document]:
    vectors = {"a": [1.0, 0.0], "b": [0.6, 0.8], "c": [0.0, 1.0]}
    metas: list[dict[str, Any]] = [{"lang": "en", "n": 1}, {"lang": "de"}, {"lang": "en", "n": 3}]
    return [
        *(
            Document(id=name, content=name, meta=meta, embedding=vector)
            for (name, vector), meta in zip(vectors.items(), metas, strict=True)
        ),
        Document(id="d", content="bare", meta={"lang": "fr"}),
    ]


@pytest.fixture(scope="module", name="store")
def give_store(address: str) -> Iterator[NearlineDocumentStore]:
    """Returns a store with documents a to d, which no test changes."""
    store = NearlineDocumentStore(address, "haystack", embedding_dim=2)
    store.write_documents(documents())
    yield store
    store.close()


def ids(found: dict[str, list[Document]]) -> list[str]:
    return [one.id for one in found["documents"]]


async def test_retrievers_find_by_embedding_words_and_both(store: NearlineDocumentStore) -> None:
    english = {"field": "meta.lang", "operator": "==", "value": "en"}
    nearest = NearlineEmbeddingRetriever(store, top_k=9)
    # The one without an embedding is found by its words alone.
    assert ids(nearest.run([1.0, 0.0])) == ids(await nearest.run_async([1.0, 0.0])) == list("abc")
    assert ids(nearest.run([1.0, 0.0], filters=english, top_k=1)) == ["a"]
    assert nearest.run([1.0, 0.0], top_k=0) == {"documents": []}
    words = NearlineRetriever(store, mode="lexical")
    assert ids(words.run("bare")) == ids(await words.run_async("bare")) == ["d"]
    both = NearlineRetriever(store, filters=english, top_k=2)
    assert ids(both.run("c", [1.0, 0.0])) == ["c", "a"]
    with pytest.raises(InvalidRequest, match="the query has no vector"):
        both.run("c")
    merged = NearlineRetriever(
        store, mode="lexical", filters=english, filter_policy=FilterPolicy.MERGE
    )
    later = {"field": "meta.n", "operator": ">", "value": 1}
    assert ids(merged.run("a c", filters=later)) == ["c"]


def test_where_nearline_embeds_documents_need_no_embedding(address: str, collection: str) -> None:
    store = NearlineDocumentStore(address, collection)
    store.write_documents([Document(content="w1 w2"), Document(content="w3 w4", embedding=[1.0])])
    for mode in ("hybrid", "dense", "lexical"):
        found = NearlineRetriever(store, mode=mode, top_k=1).run("w3 w4")["documents"]
        assert [(one.content, one.embedding) for one in found] == [("w3 w4", None)]
        assert found[0].score is not None
    store.close()


def test_parts_that_an_item_has_no_place_for_come_back(address: str, collection: str) -> None:
    store = NearlineDocumentStore(address, collection, embedding_dim=2, attributes={"n": "int"})
    several = [
        Document(id="a", blob=ByteStream(b"\x00\xff", {"k": [1]}, "x/y"), meta={"n": 1}),
        Document(id="b", content="b", sparse_embedding=SparseEmbedding([1, 5], [0.5, 2.0])),
        Document(id="c", content="", meta={"deep": {"list": [{"x": None}]}, "n": "one"}),
    ]
    assert store.write_documents(several) == 3
    assert store.filter_documents() == several
    assert store.update_by_filter(one_is("n", 1), {"n": 2, "new": [None]}) == 1
    several[0] = replace(several[0], meta={"n": 2, "new": [None]})
    assert store.filter_documents() == several
    store.close()


def one_is(field: str, value: Any, operator: str = "==") -> dict[str, Any]:
    return {"field": f"meta.{field}", "operator": operator, "value": value}


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (one_is("n", [1, None], "in"), "abd"),
        (one_is("n", [1, None], "not in"), "c"),
        (one_is("n", [], "in"), ""),
        (one_is("n", None), "bd"),
        ({"field": "lang", "operator": "!=", "value": "en"}, "bd"),
        ({"operator": "NOT", "conditions": [one_is("lang", "en"), one_is("n", 3)]}, "abd"),
        ({"operator": "OR", "conditions": [one_is("n", 2, "<"), one_is("n", 3, ">=")]}, "ac"),
    ],
)
def test_filters(store: NearlineDocumentStore, filters: dict[str, Any], found: str) -> None:
    assert [one.id for one in store.filter_documents(filters)] == list(found)


@pytest.mark.parametrize(
    "filters",
    [
        one_is("lang", "en", "~"),
        one_is("lang", ["en"]),
        one_is("lang", 5),
        one_is("n", True, ">"),
        one_is("nope", 1),
        {"field": "id", "operator": "==", "value": "a"},
        {"operator": "XOR", "conditions": []},
        {"operator": "AND", "conditions": {}},
        {"operator": "AND", "conditions": ["lang"]},
        [1],
    ],
)
def test_filters_that_cannot_be_read_are_errors_of_haystack(
    store: NearlineDocumentStore, filters: Any
) -> None:
    with pytest.raises(FilterError):
        store.filter_documents(filters)
    with pytest.raises(InvalidRequest, match="delete_all_documents"):
        store.delete_by_filter({})


def test_policies_hold_for_documents_given_twice(address: str, collection: str) -> None:
    store = NearlineDocumentStore(address, collection, embedding_dim=2)
    twice = [Document(id="x", content="first"), Document(id="x", content="second")]
    with pytest.raises(DuplicateDocumentError, match="given twice"):
        store.write_documents(twice, DuplicatePolicy.FAIL)
    assert store.write_documents(twice, DuplicatePolicy.OVERWRITE) == 2
    assert [one.content for one in store.filter_documents()] == ["second"]
    assert store.write_documents([*twice, Document(id="y", content="y")], DuplicatePolicy.SKIP) == 1
    store.close()


def test_a_pipeline_is_described_and_made_again(
    store: NearlineDocumentStore, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "")
    described = NearlineDocumentStore(
        address, "haystack", embedding_dim=2, token=Secret.from_env_var("KEY", strict=False)
    )
    pipeline = Pipeline()
    retriever = NearlineRetriever(
        described, mode="lexical", top_k=1, filter_policy=FilterPolicy.MERGE
    )
    pipeline.add_component("words", retriever)
    pipeline.add_component("nearest", NearlineEmbeddingRetriever(described))
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["nearline.integrations.*"])
    assert again.to_dict() == pipeline.to_dict()
    found = again.run({"words": {"query": "bare"}, "nearest": {"query_embedding": [0.0, 1.0]}})
    assert ids(found["words"]) == ["d"] and ids(found["nearest"])[0] == "c"


def test_a_described_store_needs_no_service() -> None:
    store = NearlineDocumentStore("127.0.0.1:1", attributes={"lang": "string"})
    assert NearlineDocumentStore.from_dict(store.to_dict()).to_dict() == store.to_dict()
    store.close()

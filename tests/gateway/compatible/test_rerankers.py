"""Reranking and embedding as Cohere, Jina and Text Embeddings Inference have them on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx2
import numpy as np
import pytest
import pytest_asyncio

from nearline.errors import InvalidRequest
from nearline.v1 import embedding_pb2
from nearline.vectors import pack
from tests.gateway.gateways import Behind, gateway

pytestmark = [pytest.mark.service, pytest.mark.asyncio(loop_scope="module")]
Served = tuple[httpx2.AsyncClient, Behind]
SCORES = [0.0, 5.0, -800.0]


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="served")
async def give_served() -> AsyncIterator[Served]:
    async with gateway() as served:
        served[1].answers["Rerank"] = lambda request: embedding_pb2.RerankResponse(scores=SCORES)
        served[1].answers["GetInfo"] = lambda request: embedding_pb2.GetInfoResponse(reranker="j2")
        yield served


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
async def test_documents_are_ordered_by_relevance(served: Served, path: str) -> None:
    client, behind = served
    found = await client.post(
        path,
        json={
            "model": "j2",
            "query": "q",
            "documents": ["a", {"text": "b"}, "c"],
            "top_n": 2,
            "return_documents": True,
        },
    )
    results = found.json()["results"]
    assert [one["index"] for one in results] == [1, 0]
    assert results[0]["relevance_score"] == pytest.approx(1 / (1 + np.exp(-5)))
    assert results[1] == {"index": 0, "relevance_score": 0.5, "document": {"text": "a"}}
    assert list(behind.request.texts) == ["a", "b", "c"]
    other = await client.post(path, json={"model": "any", "query": "q", "documents": ["a"]})
    assert (other.status_code, other.json()["error"]["param"]) == (404, "model")


@pytest.mark.parametrize(
    ("path", "body", "method"),
    [
        ("/v1/embeddings", {"input": ["a"]}, "Embed"),
        ("/rerank", {"query": "q", "texts": ["a"]}, "Rerank"),
    ],
)
async def test_a_call_whose_client_has_gone_is_cancelled(
    path: str, body: dict[str, object], method: str
) -> None:
    async with gateway() as (client, behind):
        behind.go.clear()
        waiting = asyncio.create_task(client.post(path, json=body))
        async with asyncio.timeout(10):
            while not behind.seen:
                await asyncio.sleep(0)
            waiting.cancel()
            while behind.cancelled != [method]:
                await asyncio.sleep(0.001)


async def test_texts_are_ordered_as_by_text_embeddings_inference(served: Served) -> None:
    client, _ = served
    body = {"query": "q", "texts": ["a", "b", "c"], "return_text": True}
    found = (await client.post("/rerank", json=body)).json()
    assert [(one["index"], one["text"]) for one in found] == [(1, "b"), (0, "a"), (2, "c")]
    assert found[2]["score"] == 0.0
    raw = (await client.post("/rerank", json={**body, "raw_scores": True})).json()
    assert [one["score"] for one in raw] == [5.0, 0.0, -800.0]


async def test_texts_are_embedded_as_by_text_embeddings_inference(served: Served) -> None:
    client, behind = served
    rows = np.array([[0.5, 1.0]], np.float32)
    behind.answers["Embed"] = lambda request: embedding_pb2.EmbedResponse(vectors=pack(rows))
    for inputs, name, role in (
        ("a", None, embedding_pb2.TEXT_ROLE_DOCUMENT),
        (["a"], "query", embedding_pb2.TEXT_ROLE_QUERY),
    ):
        found = await client.post("/embed", json={"inputs": inputs, "prompt_name": name})
        assert found.json() == [[0.5, 1.0]]
        assert behind.request.role == role


async def test_errors_have_the_shape_of_the_system_that_is_asked(served: Served) -> None:
    client, behind = served
    found = await client.post("/v2/rerank", json={"query": "q"})
    assert (found.status_code, "documents" in found.json()["message"]) == (400, True)

    def fail(request: object) -> None:
        raise InvalidRequest("too long", field="texts")

    behind.answers["Embed"] = fail
    found = await client.post("/embed", json={"inputs": "a"})
    assert (found.status_code, found.json()) == (
        400,
        {"error": "too long", "error_type": "invalid_request"},
    )


@pytest.mark.parametrize(
    ("path", "body", "method", "field"),
    [
        ("/v2/rerank", {"query": "q", "documents": ["a", " "]}, "Rerank", "documents"),
        ("/v1/embeddings", {"input": ["a", " "]}, "Embed", "input"),
        ("/embed", {"inputs": ["a", " "]}, "Embed", "inputs"),
        ("/rerank", {"query": "q", "texts": ["a", " "]}, "Rerank", "texts"),
    ],
)
async def test_an_error_names_the_field_that_the_caller_sent(
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body: dict[str, object],
    method: str,
    field: str,
) -> None:
    client, behind = served

    def answer_with(error: InvalidRequest) -> None:
        def fail(request: object) -> None:
            raise error

        monkeypatch.setitem(behind.answers, method, fail)

    async def error_of() -> tuple[str, str | None]:
        found = (await client.post(path, json=body)).json()
        error = found["error"]
        return (error, None) if isinstance(error, str) else (error["message"], error["param"])

    answer_with(InvalidRequest("texts[1] is empty", field="texts[1]"))
    message, param = await error_of()
    assert message == f"{field}[1] is empty" and param in (None, f"{field}[1]")
    answer_with(InvalidRequest("texts_of is unknown", field="texts_of"))
    message, param = await error_of()
    assert message == "texts_of is unknown" and param in (None, "texts_of")

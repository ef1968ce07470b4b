"""`/v1/rerank` in the shape of Cohere and Jina, `/rerank` in that of Text Embeddings Inference."""

from __future__ import annotations

import math
import secrets
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from gateway.compatible.field_names import renamed_field
from gateway.compatible.json_body import json_response, read_model
from gateway.compatible.models import check_model
from gateway.gateway_calls import GatewayCalls
from nearline.v1 import embedding_pb2


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore")

    text: str


class RerankRequest(BaseModel):
    """See https://docs.cohere.com/reference/rerank and https://api.jina.ai/redoc."""

    model_config = ConfigDict(extra="ignore")

    query: str
    documents: list[str | _Document]
    model: str = ""
    top_n: int | None = Field(None, ge=1)
    return_documents: bool = False


class TeiRerankRequest(BaseModel):
    """See https://huggingface.github.io/text-embeddings-inference."""

    model_config = ConfigDict(extra="ignore")

    query: str
    texts: list[str]
    raw_scores: bool = False
    return_text: bool = False


async def rerank(calls: GatewayCalls, request: Request) -> Response:
    """Orders documents by their relevance to a query, 0..1."""
    asked = await read_model(calls, request, "EmbeddingService", RerankRequest)
    await check_model(calls, request, asked.model, "reranker")
    texts = [one if isinstance(one, str) else one.text for one in asked.documents]
    with renamed_field("texts", "documents"):
        scores = await _scores(calls, request, asked.query, texts)
    results: list[dict[str, Any]] = []
    for number in _best_first(scores)[: asked.top_n]:
        found: dict[str, Any] = {"index": number, "relevance_score": _probability(scores[number])}
        if asked.return_documents:
            found["document"] = {"text": texts[number]}
        results.append(found)
    return json_response(
        {
            "id": secrets.token_hex(16),
            "results": results,
            "model": asked.model,
            "meta": {"api_version": {"version": "2"}},
        }
    )


async def tei_rerank(calls: GatewayCalls, request: Request) -> Response:
    """Orders texts by their relevance to a query."""
    asked = await read_model(calls, request, "EmbeddingService", TeiRerankRequest)
    scores = await _scores(calls, request, asked.query, asked.texts)
    results: list[dict[str, Any]] = []
    for number in _best_first(scores):
        score = scores[number] if asked.raw_scores else _probability(scores[number])
        found: dict[str, Any] = {"index": number, "score": score}
        if asked.return_text:
            found["text"] = asked.texts[number]
        results.append(found)
    return json_response(results)


async def _scores(
    calls: GatewayCalls, request: Request, query: str, texts: list[str]
) -> list[float]:
    message = embedding_pb2.RerankRequest(query=query, texts=texts)
    reply: Any = await calls.one(request, "EmbeddingService", "Rerank", message)
    return list(reply.scores)


def _best_first(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda number: (-scores[number], number))


def _probability(score: float) -> float:
    """Returns the logistic function of a score, as the other systems do with theirs."""
    return 1 / (1 + math.exp(-score)) if score >= 0 else math.exp(score) / (1 + math.exp(score))

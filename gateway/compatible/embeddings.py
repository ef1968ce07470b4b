"""`/v1/embeddings` in the shape of OpenAI, and `/embed` in that of Text Embeddings Inference."""

from __future__ import annotations

import base64
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from gateway.compatible.json_body import json_response, read_model
from gateway.gateway_calls import GatewayCalls
from nearline import vectors
from nearline.v1 import embedding_pb2


class OpenAIEmbeddingsRequest(BaseModel):
    """See https://platform.openai.com/docs/api-reference/embeddings; `input_type` is Cohere's."""

    model_config = ConfigDict(extra="ignore")

    input: str | list[str]
    model: str = ""
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1, le=65_536)
    input_type: Literal["query", "document"] = "document"


class TeiEmbedRequest(BaseModel):
    """See https://huggingface.github.io/text-embeddings-inference; vectors have unit length."""

    model_config = ConfigDict(extra="ignore")

    inputs: str | list[str]
    dimensions: int | None = Field(None, ge=1, le=65_536)
    prompt_name: str | None = None


async def openai_embeddings(calls: GatewayCalls, request: Request) -> Response:
    """Embeds texts."""
    asked = await read_model(request, OpenAIEmbeddingsRequest, calls.settings.max_body_bytes)
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    role = (
        embedding_pb2.TEXT_ROLE_QUERY
        if asked.input_type == "query"
        else embedding_pb2.TEXT_ROLE_DOCUMENT
    )
    reply = await _embed(calls, request, texts, role, asked.dimensions)
    matrix = vectors.decode(reply.vectors)
    tokens = sum(report.tokens for report in reply.reports)
    in_base64 = asked.encoding_format == "base64"
    return json_response(
        {
            "object": "list",
            "data": [
                {
                    "object": "embedding",
                    "index": number,
                    "embedding": _base64(row) if in_base64 else row.tolist(),
                }
                for number, row in enumerate(matrix)
            ],
            "model": asked.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


async def tei_embed(calls: GatewayCalls, request: Request) -> Response:
    """Embeds texts; replies with the vectors alone."""
    asked = await read_model(request, TeiEmbedRequest, calls.settings.max_body_bytes)
    texts = [asked.inputs] if isinstance(asked.inputs, str) else asked.inputs
    role = (
        embedding_pb2.TEXT_ROLE_QUERY
        if asked.prompt_name == "query"
        else embedding_pb2.TEXT_ROLE_DOCUMENT
    )
    reply = await _embed(calls, request, texts, role, asked.dimensions)
    return json_response(vectors.decode(reply.vectors).tolist())


async def _embed(
    calls: GatewayCalls,
    request: Request,
    texts: list[str],
    role: embedding_pb2.TextRole,
    dimensions: int | None,
) -> Any:
    message = embedding_pb2.EmbedRequest(texts=texts, role=role, dimensions=dimensions)
    return await calls.one(request, "EmbeddingService", "Embed", message)


def _base64(row: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(row, "<f4").tobytes()).decode()

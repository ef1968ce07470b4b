"""`/v1/embeddings` in the shape of OpenAI, and `/embed` in that of Text Embeddings Inference."""

from __future__ import annotations

import base64
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from gateway.compatible.field_names import renamed_field
from gateway.compatible.json_body import json_response, read_model
from gateway.compatible.models import check_model
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
    asked = await read_model(calls, request, "EmbeddingService", OpenAIEmbeddingsRequest)
    await check_model(calls, request, asked.model, "model")
    with renamed_field("texts", "input"):
        reply = await _embed(calls, request, asked.input, asked.input_type, asked.dimensions)
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
    asked = await read_model(calls, request, "EmbeddingService", TeiEmbedRequest)
    with renamed_field("texts", "inputs"):
        reply = await _embed(calls, request, asked.inputs, asked.prompt_name, asked.dimensions)
    return json_response(vectors.decode(reply.vectors).tolist())


async def _embed(
    calls: GatewayCalls,
    request: Request,
    given: str | list[str],
    role: str | None,
    dimensions: int | None,
) -> Any:
    """Returns the reply for one text or several. role: "query"; any other stands for documents."""
    message = embedding_pb2.EmbedRequest(
        texts=[given] if isinstance(given, str) else given,
        role=embedding_pb2.TEXT_ROLE_QUERY if role == "query" else embedding_pb2.TEXT_ROLE_DOCUMENT,
        dimensions=dimensions,
    )
    return await calls.one(request, "EmbeddingService", "Embed", message)


def _base64(row: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(row, "<f4").tobytes()).decode()

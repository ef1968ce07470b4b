"""The paths of interfaces of other systems."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from gateway.compatible.chat import chat_completions
from gateway.compatible.embeddings import openai_embeddings, tei_embed
from gateway.compatible.error_bodies import openai_error, tei_error
from gateway.compatible.models import get_model, list_models
from gateway.compatible.rerankers import rerank, tei_rerank
from gateway.gateway_calls import GatewayCalls
from nearline.errors import NearlineError

ErrorBody: TypeAlias = Callable[[NearlineError], dict[str, Any]]


class CompatiblePath(NamedTuple):
    """A verb and a path, what answers there, and the shape of its errors.

    service, method: The one that takes its time.
    """

    verb: str
    path: str
    service: str
    method: str
    answer: Callable[[GatewayCalls, Request], Awaitable[Response]]
    error_body: ErrorBody


PATHS: Final = (
    CompatiblePath(
        "POST",
        "/v1/chat/completions",
        "GenerationService",
        "Generate",
        chat_completions,
        openai_error,
    ),
    CompatiblePath(
        "POST", "/v1/embeddings", "EmbeddingService", "Embed", openai_embeddings, openai_error
    ),
    CompatiblePath(
        "GET", "/v1/models", "AdminService", "GetServingStatus", list_models, openai_error
    ),
    CompatiblePath(
        "GET",
        "/v1/models/{model:path}",
        "AdminService",
        "GetServingStatus",
        get_model,
        openai_error,
    ),
    # Cohere's own clients ask the second version.
    CompatiblePath("POST", "/v1/rerank", "EmbeddingService", "Rerank", rerank, openai_error),
    CompatiblePath("POST", "/v2/rerank", "EmbeddingService", "Rerank", rerank, openai_error),
    CompatiblePath("POST", "/embed", "EmbeddingService", "Embed", tei_embed, tei_error),
    CompatiblePath("POST", "/rerank", "EmbeddingService", "Rerank", tei_rerank, tei_error),
)

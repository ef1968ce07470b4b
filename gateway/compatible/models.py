"""`/v1/models` in the shape of OpenAI: what answers, and what embeds."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.compatible.json_body import json_response
from gateway.compatible.model_names import PREFIX, parse_chat_model
from gateway.gateway_calls import GatewayCalls
from nearline.errors import NearlineError, NotFound
from nearline.v1 import admin_pb2, embedding_pb2

_WRITERS = ("", ":extractive")


async def list_models(calls: GatewayCalls, request: Request) -> Response:
    """Lists the collections that the caller may ask, and the embedding model."""
    return json_response({"object": "list", "data": await _models(calls, request)})


async def get_model(calls: GatewayCalls, request: Request) -> Response:
    """Returns one model. Raises: NotFound: there is none of that name."""
    name = request.path_params["model"]
    for model in await _models(calls, request):
        if model["id"] == name:
            return json_response(model)
    if name.startswith(PREFIX):
        # Any writer may be asked of a collection.
        collection = parse_chat_model(name).collection
        for model in await _models(calls, request):
            if model["id"] == f"{PREFIX}{collection}":
                return json_response({**model, "id": name})
    raise NotFound(f"there is no model {name!r}; /v1/models lists them", field="model")


async def check_model(calls: GatewayCalls, request: Request, name: str, kind: str) -> None:
    """Raises NotFound if a caller names another model than is served; kind: model or reranker."""
    if name:
        info = await calls.one(
            request, "EmbeddingService", "GetInfo", embedding_pb2.GetInfoRequest()
        )
        # Without a reranker, Rerank says so.
        if (has := getattr(info, kind)) not in ("", name):
            raise NotFound(
                f"there is no model {name!r}; send {has!r}, or leave model out", field="model"
            )


async def _models(calls: GatewayCalls, request: Request) -> list[dict[str, Any]]:
    status: Any = await calls.one(
        request, "AdminService", "GetServingStatus", admin_pb2.GetServingStatusRequest()
    )
    found: list[dict[str, Any]] = []
    if "GenerationService" in calls.upstream.services:
        found += [
            _model(f"{PREFIX}{one.collection}{writer}", _created(one.snapshot_id))
            for one in status.collections
            for writer in _WRITERS
        ]
    # Without an embedding service, or where it does not answer, the others are there.
    with contextlib.suppress(NearlineError):
        info: Any = await calls.one(
            request, "EmbeddingService", "GetInfo", embedding_pb2.GetInfoRequest()
        )
        found.append(_model(info.model, 0))
        if info.reranker:
            found.append(_model(info.reranker, 0))
    return found


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "nearline"}


def _created(snapshot_id: str) -> int:
    """Returns when a snapshot was built, in Unix time; 0 if its name does not say."""
    try:
        made = datetime.strptime(snapshot_id[:16], "%Y%m%dT%H%M%SZ")
    except ValueError:
        return 0
    return int(made.replace(tzinfo=UTC).timestamp())

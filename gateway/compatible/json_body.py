"""Requests and replies of interfaces whose shapes are not those of the protos."""

from __future__ import annotations

from typing import TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from gateway.body import parse_json, read_body
from gateway.conversion import convert
from gateway.gateway_calls import GatewayCalls
from nearline.errors import InvalidRequest

_Model = TypeVar("_Model", bound=BaseModel)


async def read_model(
    calls: GatewayCalls, request: Request, service: str, kind: type[_Model]
) -> _Model:
    """Returns the body of a request, whose caller a service must know.

    Raises: InvalidRequest: it is something else; names the field. Unauthenticated.
    """
    await calls.upstream.identify(service, calls.context(request))
    try:
        body = await read_body(request, calls.settings.max_body_bytes)
        return await convert(len(body), lambda: kind.model_validate(parse_json(body)))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        path = ".".join(str(one) for one in first["loc"]) or "the body"
        raise InvalidRequest(f"{path}: {first['msg'].lower()}", field=path) from error


def json_response(value: object) -> Response:
    """Returns a reply."""
    return Response(orjson.dumps(value), media_type="application/json")

"""Requests and replies of interfaces whose shapes are not those of the protos."""

from __future__ import annotations

from typing import TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from gateway.body import parse_json, read_body
from nearline.errors import InvalidRequest

_Model = TypeVar("_Model", bound=BaseModel)


async def read_model(request: Request, kind: type[_Model], limit: int) -> _Model:
    """Returns the body of a request.

    Args:
        request: The request.
        kind: What it must be.
        limit: Most bytes.
    Raises: InvalidRequest: it is something else; names the field.
    """
    try:
        return kind.model_validate(parse_json(await read_body(request, limit)))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        path = ".".join(str(one) for one in first["loc"]) or "the body"
        raise InvalidRequest(f"{path}: {first['msg'].lower()}", field=path) from error


def json_response(value: object) -> Response:
    """Returns a reply."""
    return Response(orjson.dumps(value), media_type="application/json")

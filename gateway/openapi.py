"""The OpenAPI document of the gateway, made from the protos and the routes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any, Final

from google.protobuf.descriptor import (
    Descriptor,
    FieldDescriptor,
    MethodDescriptor,
)

from gateway.interaction_rows import CSV, REQUIRED as REQUIRED_CELLS
from gateway.json_decoder import INTS
from gateway.json_format import TIME_KEY, enum_words, map_entry
from gateway.problem import BODY_STATUSES, MEDIA_TYPE, STATUSES
from gateway.routes import ROUTES, Route
from gateway.upstream import SERVICES
from nearline.wire.limits import LIMITS, REQUIRED, Limit

_Schema = dict[str, Any]
_SCALARS: Final[Mapping[int, _Schema]] = {
    **{
        kind: {
            "type": "integer",
            "format": "int32" if allowed.stop == 1 << 31 else "int64",
            "minimum": allowed.start,
            "maximum": allowed.stop - 1,
        }
        for kind, allowed in INTS.items()
    },
    FieldDescriptor.CPPTYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_STRING: {"type": "string"},
}
_BASE64: Final[_Schema] = {
    "type": "string",
    "contentEncoding": "base64",
    "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)?$",
}
_NO_LIMIT: Final = Limit(-math.inf)
# The words for a limit of a type.
_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "array": ("minItems", "maxItems"),
    "integer": ("minimum", "maximum"),
    "number": ("minimum", "maximum"),
    "object": ("minProperties", "maxProperties"),
    "string": ("minLength", "maxLength"),
}
_SCALAR: Final[_Schema] = {"type": ["string", "number", "integer", "boolean", "null"]}
_TIME: Final[_Schema] = {
    "type": "object",
    "properties": {TIME_KEY: {"type": "string", "format": "date-time"}},
    "required": [TIME_KEY],
}
# Messages that are not objects of their fields.
_SPECIAL: Final[Mapping[str, _Schema]] = {
    "nearline.v1.Value": {
        "description": "A value of an attribute.",
        "anyOf": [_SCALAR, _TIME, {"type": "array", "items": {"anyOf": [_SCALAR, _TIME]}}],
    },
    "nearline.v1.Filter": {
        "description": 'A filter: a text, "price < 80 AND brand = acme", or JSON.',
        "anyOf": [{"type": "string", "minLength": 1}, {"type": "object"}],
    },
    "nearline.v1.Vectors": {
        "description": "Vectors.",
        "type": "array",
        "items": {"type": "array", "items": {"type": "number"}},
    },
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "number", "description": "Seconds."},
}
_PROBLEM: Final[_Schema] = {
    "type": "object",
    "description": "What is wrong, and what helps (RFC 9457).",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "reason": {"type": "string"},
        "field": {"type": "string"},
        "retry_after_s": {"type": "number"},
        "request_id": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail", "reason", "request_id"],
}

_LINES: Final = "application/x-ndjson"
# What answers; the last two, if changes were rejected.
_REPLIES: Final = {
    "200": "The reply.",
    "207": "Some changes were rejected; the reply says which, and why.",
    "422": "All changes were rejected, and nothing was written; the reply says why.",
}
_TEXT: _Schema = {"type": "string"}
# An interaction of an import.
_ROW: _Schema = {
    "type": "object",
    "properties": {
        **{name: {**_TEXT, "minLength": 1} for name in ("user_id", "item_id")},
        "kind": _TEXT,
        "time": {"type": ["string", "number"]},
        "weight": {"type": "number"},
    },
    "required": list(REQUIRED_CELLS),
}


@cache
def openapi(version: str) -> _Schema:
    """Returns the document. version: That of Nearline."""
    schemas: dict[str, _Schema] = {"Problem": _PROBLEM}
    paths: dict[str, dict[str, Any]] = {}
    for service, methods in ROUTES.items():
        for name, route in methods.items():
            method = SERVICES[service].methods_by_name[name]
            operation = _operation(service, method, route)
            paths.setdefault(route.path, {})[route.verb.lower()] = operation
            _collect(schemas, _messages(method))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Nearline",
            "version": version,
            "description": "Recommendation and retrieval over your own catalogue and documents.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{}, {"key": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _messages(method: MethodDescriptor) -> Iterable[Descriptor]:
    for message, streams in (
        (method.input_type, method.client_streaming),
        (method.output_type, method.server_streaming and method.client_streaming),
    ):
        inner = message.fields[0].message_type if streams else None
        yield message if inner is None else inner


def _operation(service: str, method: MethodDescriptor, route: Route) -> _Schema:
    sent, received = _messages(method)
    names = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": _field(sent.fields_by_name[name], LIMITS.get(name, REQUIRED)),
        }
        for name in names
    ]
    found: _Schema = {"operationId": method.name, "tags": [service.removesuffix("Service")]}
    if route.rows or not route.has_body:
        parameters += [
            {
                "name": field.name,
                "in": "query",
                "required": _is_required(field),
                "schema": _field(field),
            }
            for field in sent.fields
            if field.name not in names and not (route.rows and field.is_repeated)
        ]
    if route.has_body:
        content: _Schema = {"application/json": {"schema": _ref(sent)}}
        if route.rows:
            content = {_LINES: _each(_ROW), CSV: {"schema": _TEXT}}
        elif method.client_streaming:
            content = {_LINES: _each(_ref(sent))}
        is_needed = any(map(_is_required, sent.fields)) or method.client_streaming
        is_required = (route.verb == "PUT" or is_needed) and not route.rows
        found["requestBody"] = {"required": is_required, "content": content}
    reply: _Schema = {"application/json": {"schema": _ref(received)}}
    if method.server_streaming:
        reply = {_LINES if method.client_streaming else "text/event-stream": _each(_ref(received))}
    problem = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    found["parameters"] = parameters
    found["responses"] = {
        str(status): {"description": HTTPStatus(status).phrase, "content": problem}
        for status in (*STATUSES, *(BODY_STATUSES if route.has_body else ()))
    } | {
        status: {"description": description, "content": reply}
        for status, description in _REPLIES.items()
        if status == "200" or _is_write(received)
    }
    return found


def _each(schema: _Schema) -> _Schema:
    """Returns the schema of a text of lines or events; OpenAPI 3.1 has no word for each of them."""
    return {"schema": _TEXT, "x-itemSchema": schema}


def _is_write(message: Descriptor) -> bool:
    """Returns whether a message says of each change what came of it."""
    return any(
        one.message_type and one.message_type.name == "WriteResult" for one in message.fields
    )


def _collect(schemas: dict[str, _Schema], messages: Iterable[Descriptor]) -> None:
    """Adds the schemas of messages, and of all that are in them."""
    waiting = list(messages)
    while waiting:
        message = waiting.pop()
        if _name(message) in schemas:
            continue
        special = _SPECIAL.get(message.full_name)
        schemas[_name(message)] = _object(message) if special is None else special
        if special is None:
            waiting += [one.message_type for one in _parts(message) if one.message_type is not None]


def _parts(message: Descriptor) -> Iterable[FieldDescriptor]:
    for field in message.fields:
        entry = map_entry(field)
        yield field if entry is None else entry[1]


def _object(message: Descriptor) -> _Schema:
    found: _Schema = {
        "type": "object",
        "properties": {field.name: _field(field) for field in message.fields},
        "required": [field.name for field in message.fields if _is_required(field)],
        "additionalProperties": False,
    }
    if _is_write(message):
        found["properties"].setdefault("rejected", {"type": "integer", "minimum": 0})
    if any(len(group.fields) == len(message.fields) > 1 for group in message.oneofs):
        found |= {"minProperties": 1, "maxProperties": 1}
    return found


def _is_required(field: FieldDescriptor) -> bool:
    """Returns whether a request without the field is refused."""
    may_be_unset = field.has_presence and field.message_type is None
    return not may_be_unset and _limit(field).least > 0


def _limit(field: FieldDescriptor, part: str = "") -> Limit:
    return LIMITS.get(field.full_name.removeprefix("nearline.v1.") + part, _NO_LIMIT)


def _field(field: FieldDescriptor, limit: Limit | None = None) -> _Schema:
    if (entry := map_entry(field)) is not None:
        found: _Schema = {"type": "object", "additionalProperties": _one(entry[1])}
    elif field.is_repeated:
        found = {"type": "array", "items": _limited(_one(field), _limit(field, "[]"))}
    else:
        found = _one(field)
    return _limited(found, limit or _limit(field))


def _limited(schema: _Schema, limit: Limit) -> _Schema:
    """Returns a schema with a limit, in the words for its type; of a message, it has its own."""
    words = _WORDS.get(schema.get("type", ""))
    if words is None:
        return schema
    of_words = dict(zip(words, limit[:2], strict=True))
    found = {word: bound for word, bound in of_words.items() if math.isfinite(bound)}
    return schema | found | ({"pattern": f"^{limit.pattern}$"} if limit.pattern else {})


def _one(field: FieldDescriptor) -> _Schema:
    if field.message_type is not None:
        if field.name == "vector" and field.message_type.full_name == "nearline.v1.Vectors":
            return {"type": "array", "items": {"type": "number"}}
        return _ref(field.message_type)
    if field.enum_type is not None:
        # "" is unset, which no entry of a list is.
        words = [*enum_words(field.enum_type), *([] if field.is_repeated else [""])]
        return {"type": "string", "enum": words}
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _BASE64
    return _SCALARS[field.cpp_type]


def _ref(message: Descriptor) -> _Schema:
    return {"$ref": f"#/components/schemas/{_name(message)}"}


def _name(message: Descriptor) -> str:
    return (
        message.full_name.removeprefix("nearline.v1.")
        .replace("google.protobuf.", "")
        .replace(".", "")
    )

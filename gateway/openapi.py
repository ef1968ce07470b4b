"""The OpenAPI document of the gateway, made from the protos and the routes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    FieldDescriptor,
    MethodDescriptor,
)

from gateway.interaction_rows import CSV, REQUIRED
from gateway.json_format import TIME_KEY, enum_words, map_entry
from gateway.problem import MEDIA_TYPE
from gateway.routes import ROUTES, Route
from gateway.upstream import SERVICES

_Schema = dict[str, Any]
_NUMBERS: Final[Mapping[int, _Schema]] = {
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "minimum": 0},
    FieldDescriptor.CPPTYPE_INT64: {"type": "integer", "format": "int64"},
    FieldDescriptor.CPPTYPE_UINT64: {"type": "integer", "format": "int64", "minimum": 0},
    FieldDescriptor.CPPTYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_STRING: {"type": "string"},
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
        "anyOf": [{"type": "string"}, {"type": "object"}],
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

_TEXT: _Schema = {"type": "string"}
# An interaction of an import.
_ROW: _Schema = {
    "type": "object",
    "properties": {
        **dict.fromkeys(("user_id", "item_id", "kind"), _TEXT),
        "time": {"type": ["string", "number"]},
        "weight": {"type": "number"},
    },
    "required": list(REQUIRED),
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
            "schema": _field(sent.fields_by_name[name]),
        }
        for name in names
    ]
    found: _Schema = {"operationId": method.name, "tags": [service.removesuffix("Service")]}
    if route.rows:
        parameters += [
            {"name": field.name, "in": "query", "schema": _field(field)}
            for field in sent.fields
            if field.name not in names and not field.is_repeated
        ]
        found["requestBody"] = {
            "required": True,
            "content": {"application/x-ndjson": {"schema": _ROW}, CSV: {"schema": _TEXT}},
        }
    elif route.has_body:
        media = "application/x-ndjson" if method.client_streaming else "application/json"
        found["requestBody"] = {"required": True, "content": {media: {"schema": _ref(sent)}}}
    else:
        parameters += [
            {"name": field.name, "in": "query", "schema": _field(field)}
            for field in sent.fields
            if field.name not in names
        ]
    reply: _Schema = {"application/json": {"schema": _ref(received)}}
    if method.server_streaming and method.client_streaming:
        reply = {"application/x-ndjson": {"schema": _ref(received)}}
    elif method.server_streaming:
        # The whole of the events is a text; OpenAPI 3.2 has a word for what is in each.
        reply = {"text/event-stream": {"schema": {"type": "string"}, "itemSchema": _ref(received)}}
    found["parameters"] = parameters
    found["responses"] = {
        "200": {"description": "The reply.", "content": reply},
        "default": {
            "description": "An error.",
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        },
    }
    return found


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
    return {
        "type": "object",
        "properties": {field.name: _field(field) for field in message.fields},
    }


def _field(field: FieldDescriptor) -> _Schema:
    if (entry := map_entry(field)) is not None:
        return {"type": "object", "additionalProperties": _one(entry[1])}
    if field.is_repeated:
        return {"type": "array", "items": _one(field)}
    return _one(field)


def _one(field: FieldDescriptor) -> _Schema:
    if field.message_type is not None:
        if field.name == "vector" and field.message_type.full_name == "nearline.v1.Vectors":
            return {"type": "array", "items": {"type": "number"}}
        return _ref(field.message_type)
    if field.enum_type is not None:
        return _enum(field.enum_type)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"type": "string", "contentEncoding": "base64"}
    return dict(_NUMBERS[field.cpp_type])


def _enum(enum: EnumDescriptor) -> _Schema:
    return {"type": "string", "enum": [*enum_words(enum), ""]}


def _ref(message: Descriptor) -> _Schema:
    return {"$ref": f"#/components/schemas/{_name(message)}"}


def _name(message: Descriptor) -> str:
    return (
        message.full_name.removeprefix("nearline.v1.")
        .replace("google.protobuf.", "")
        .replace(".", "")
    )

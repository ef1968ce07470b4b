"""JSON of the gateway: every message goes there and back, and its schema describes it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings, strategies as st
from jsonschema import Draft202012Validator

from gateway.body import parse_json
from gateway.json_decoder import decode
from gateway.json_encoder import encode
from gateway.openapi import openapi
from gateway.routes import ROUTES
from gateway.upstream import SERVICES
from nearline import wire
from nearline.errors import InvalidRequest
from nearline.filter_text import parse_filter
from nearline.v1 import retrieval_pb2, types_pb2
from nearline.vectors import pack

MESSAGES = sorted(
    {
        kind
        for service, methods in ROUTES.items()
        for name in methods
        for method in (SERVICES[service].methods_by_name[name],)
        for kind in (method.input_type.full_name, method.output_type.full_name)
    }
)
CLASSES = {
    kind.full_name: GetMessageClass(kind)
    for service, methods in ROUTES.items()
    for name in methods
    for method in (SERVICES[service].methods_by_name[name],)
    for kind in (method.input_type, method.output_type)
}


LIMITS = {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"}
LIMITS |= {"minimum", "maximum", "required"}


def _unlimited(schema: Any) -> Any:
    """Returns a schema without limits, which messages that are drawn at random do not keep."""
    if isinstance(schema, list):
        return [_unlimited(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {name: _unlimited(one) for name, one in schema.items() if name not in LIMITS}


_DOCUMENT = openapi("1")
VALIDATORS = {
    name: Draft202012Validator(
        {
            "$ref": f"#/components/schemas/{name.removeprefix('nearline.v1.')}",
            "components": {"schemas": _unlimited(_DOCUMENT["components"]["schemas"])},
        }
    )
    for name in MESSAGES
    if name.removeprefix("nearline.v1.") in _DOCUMENT["components"]["schemas"]
}


def _draw(data: st.DataObject, descriptor: Descriptor, depth: int = 0) -> Message:
    """Draws a message that services may send or take."""
    match descriptor.full_name:
        case "nearline.v1.Vectors":
            shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 4)))
            return pack((np.arange(np.prod(shape)).reshape(shape) / 7).astype(np.float32))
        case "nearline.v1.Filter":
            return wire.filter_to_proto(parse_filter("a = 1 AND NOT b < 2"))
        case "nearline.v1.Value":
            return wire.value_to_proto(
                data.draw(
                    st.none()
                    | st.text()
                    | st.booleans()
                    | st.floats(allow_nan=False, allow_infinity=False)
                    | st.integers(-(1 << 63), (1 << 63) - 1)
                    | st.lists(st.text(), max_size=2)
                )
            )
    message = GetMessageClass(descriptor)()
    if descriptor.full_name.startswith("google.protobuf."):
        message.seconds = data.draw(st.integers(0, 1 << 31))  # type: ignore[attr-defined]
        message.nanos = data.draw(st.sampled_from([0, 500_000_000]))  # type: ignore[attr-defined]
        return message
    for oneof in descriptor.oneofs:
        if len(oneof.fields) > 1:
            _fill(data, message, data.draw(st.sampled_from(list(oneof.fields))), depth)
    for field in descriptor.fields:
        group = field.containing_oneof
        if (group is None or len(group.fields) < 2) and data.draw(st.booleans()):
            _fill(data, message, field, depth)
    return message


def _fill(data: st.DataObject, message: Any, field: FieldDescriptor, depth: int) -> None:
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        value = inner.fields_by_name["value"]
        found = getattr(message, field.name)
        if value.message_type is not None:
            found["key"].CopyFrom(_draw(data, value.message_type, depth + 1))
        else:
            found["key"] = _scalar(data, value)
    elif inner is not None:
        if depth > 4:
            return
        if field.is_repeated:
            getattr(message, field.name).append(_draw(data, inner, depth + 1))
        else:
            drawn = _draw(data, inner, depth + 1)
            if field.name == "vector" and inner.full_name == "nearline.v1.Vectors":
                drawn = pack(np.ones(3, np.float32))
            getattr(message, field.name).CopyFrom(drawn)
    elif field.is_repeated:
        getattr(message, field.name).extend([_scalar(data, field)])
    else:
        setattr(message, field.name, _scalar(data, field))


def _scalar(data: st.DataObject, field: FieldDescriptor) -> Any:
    if field.enum_type is not None:
        # No entry of a list is unset.
        numbers = [one.number for one in field.enum_type.values][1 if field.is_repeated else 0 :]
        return data.draw(st.sampled_from(numbers))
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return data.draw(st.binary(max_size=5))
        case FieldDescriptor.CPPTYPE_STRING:
            return data.draw(st.text(max_size=5))
        case FieldDescriptor.CPPTYPE_BOOL:
            return data.draw(st.booleans())
        case FieldDescriptor.CPPTYPE_FLOAT:
            return data.draw(st.floats(width=32, allow_nan=False, allow_infinity=False))
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return data.draw(st.floats(allow_nan=False, allow_infinity=False))
        case FieldDescriptor.CPPTYPE_INT32 | FieldDescriptor.CPPTYPE_INT64:
            return data.draw(st.integers(-(1 << 31), (1 << 31) - 1))
        case _:
            return data.draw(st.integers(0, (1 << 32) - 1))


@pytest.mark.parametrize("name", MESSAGES)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_a_message_goes_to_json_and_back_and_fits_its_schema(
    name: str, data: st.DataObject
) -> None:
    kind: Any = CLASSES[name].DESCRIPTOR
    message = _draw(data, kind)
    text = json.dumps(encode(message))
    if name in VALIDATORS:
        VALIDATORS[name].validate(json.loads(text))
    found = decode(CLASSES[name], json.loads(text))
    assert found == message, text


def test_filters_are_texts_or_json() -> None:
    text = "a = 1 AND (b IN [x, y] OR NOT c EXISTS) AND d 1 TO 2.5 AND e > 2024-05-01"
    options = decode(retrieval_pb2.SearchOptions, {"filter": text})
    again = decode(retrieval_pb2.SearchOptions, {"filter": encode(options)["filter"]})
    assert options == again
    assert options.filter == wire.filter_to_proto(parse_filter(text))


@pytest.mark.parametrize(
    ("text", "field"), [("a =", "options.filter"), ("a > true", "options.filter.range.gt")]
)
def test_a_refused_filter_names_the_field_that_it_is_in(text: str, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(retrieval_pb2.SearchRequest, {"options": {"filter": text}})
    assert caught.value.field == field


def test_numbers_of_32_bits_are_as_short_as_they_were() -> None:
    assert encode(retrieval_pb2.Hit(score=0.1))["score"] == 0.1
    assert decode(types_pb2.ServedBy, {"source": "SOURCE_CACHE"}).source == 2


@pytest.mark.parametrize("row", [[True, 1], ["1", "2"], [None, 1], [[1, False]], [{}]])
def test_a_vector_has_numbers_alone(row: object) -> None:
    with pytest.raises(InvalidRequest, match="list of numbers"):
        decode(types_pb2.Vectors, row, "query.vector")


@pytest.mark.parametrize("body", [b"\x0b", b"\x0c \x0b", b"\x1c"])
def test_a_body_of_control_characters_is_not_json(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="not JSON"):
        parse_json(body)
    assert parse_json(b" \r\n\t") == {}

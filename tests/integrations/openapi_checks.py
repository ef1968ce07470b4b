"""Hooks of Schemathesis: bodies of lines, and requests that are fine although no schema says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import schemathesis
from jsonschema import Draft202012Validator, validators
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.specs.openapi.checks import negative_data_rejection

_types = Draft202012Validator.TYPE_CHECKER
_is_number, _is_integer = (
    lambda checker, value, kind=kind: _types.is_type(_value(value), kind)
    for kind in ("number", "integer")
)
_types_of_texts = _types.redefine_many(
    {
        "number": _is_number,
        "integer": _is_integer,
        "boolean": lambda _, one: _value(one) in (True, False),
    }
)
# JavaScript has no integers of 64 bits, and a query has texts only, so a number may be a text.
_Validator = validators.extend(Draft202012Validator, type_checker=_types_of_texts)


@schemathesis.serializer("application/x-ndjson")
def line(context: Any, value: Any) -> Any:
    """Returns a body of one line."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@schemathesis.check
def wrong_requests_are_refused(context: Any, response: Any, case: Any) -> Any:
    """Raises AcceptedNegativeData for a request that the document does not allow."""
    try:
        return negative_data_rejection(context, response, case)
    except AcceptedNegativeData:
        # Of a batch, the wrong items were rejected.
        if response.status_code == 207 or _is_fine(case):
            return None
        raise


def _is_fine(case: Any) -> bool:
    """Returns whether a body is right, given that null is unset and a number may be a text."""
    document = json.loads(Path("openapi.json").read_text())
    operation = document["paths"][case.operation.path][case.operation.method.lower()]
    body = operation.get("requestBody", {}).get("content", {}).get(case.media_type)
    if body is None or not isinstance(case.body, dict):
        return False
    schema = {**body["schema"], "components": document["components"]}
    return bool(_Validator(schema).is_valid(_set(case.body)))


def _set(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _set(one) for name, one in value.items() if one is not None}
    return [_set(one) for one in value] if isinstance(value, list) else value


def _value(value: Any) -> Any:
    """Returns what a text stands for, if it is a number or a truth value."""
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value)
    except ValueError:
        return value
    return found if isinstance(found, bool | int | float) else value

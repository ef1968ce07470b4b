"""Reads attributes that are written as NAME=VALUE."""

from __future__ import annotations

import json
from collections.abc import Sequence

from nearline import contract as c
from nearline.errors import InvalidRequest


def read_scalars(words: Sequence[str]) -> dict[str, c.Scalar]:
    """Returns the values by name; for example {"country": "DE", "age": 34}.

    Args:
        words: NAME=VALUE each, a name once. A value is true, false, a number or a text; in double
            quotes, all are texts.
    Raises: InvalidRequest.
    """
    found: dict[str, c.Scalar] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise InvalidRequest(f"{word!r} is not NAME=VALUE; write for example country=DE")
        if name in found:
            raise InvalidRequest(f"{name} occurs twice; pass each name once")
        found[name] = _scalar(value)
    return found


def _scalar(text: str) -> c.Scalar:
    try:
        # NaN and Infinity are texts.
        value = json.loads(text, parse_constant=str)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float | str) else text

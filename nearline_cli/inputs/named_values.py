"""Attributes of users and requests on the command line: country=DE age=34."""

from __future__ import annotations

import json
from collections.abc import Iterable

from nearline.contract import Scalar
from nearline.errors import InvalidRequest


def read_named_values(texts: Iterable[str]) -> dict[str, Scalar]:
    """Returns values by name: a number, true or false as in JSON, any other value as a text.

    Raises: InvalidRequest: a text has no name or no "=".
    """
    values: dict[str, Scalar] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise InvalidRequest(f"{text!r} is not NAME=VALUE; write for example country=DE")
        try:
            read = json.loads(value)
        except ValueError:
            read = value
        values[name] = read if isinstance(read, str | bool | int | float) else value
    return values

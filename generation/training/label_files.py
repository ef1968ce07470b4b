"""Reads files of labels: a JSON object in each line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from nearline.errors import InvalidRequest

LabelRow: TypeAlias = dict[str, Any]  # JSON.


def read_rows(path: Path, *, max_bytes: int | None = None) -> Iterator[tuple[str, LabelRow]]:
    """Yields the place of each line, as in "claims_test.jsonl:3", and its object.

    Args:
        path: The file; lines of white space are skipped.
        max_bytes: Largest file that is read; None for any.
    Raises: InvalidRequest: the file is missing or too large, or a line is no JSON object.
    """
    if not path.is_file():
        raise InvalidRequest(f"file {path} is missing; the labels need it", field="data")
    if max_bytes is not None and path.stat().st_size > max_bytes:
        raise InvalidRequest(
            f"file {path} has {path.stat().st_size} bytes, {max_bytes} are allowed; pass fewer "
            "labels",
            field="data",
        )
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise malformed(place, "its fields") from error
        if not isinstance(row, dict):
            raise malformed(place, "its fields")
        yield place, row


def as_list(value: Any) -> list[Any]:
    """Returns a value that is a list. Raises TypeError if it is none."""
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return value


def malformed(place: str, fields: str) -> InvalidRequest:
    """Returns the error of a line that lacks fields."""
    return InvalidRequest(f"{place} is not a JSON object with {fields}", field="data")

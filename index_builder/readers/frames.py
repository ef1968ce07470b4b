"""The protocol of the sandbox: rows travel as frames, lines of JSON with many entries each.

An entry is a row, a malformed row, or the end of a file with the reason why it ended. JSON has no
times, decimals and vectors; these are tagged. What comes from the sandbox is never trusted: a frame
can only become rows, not code.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

import numpy as np

from index_builder.documents.bad_rows import BadRow
from index_builder.documents.records import SourceLocation, SourceRow
from nearline.contract import Item

# A frame is sent once it has this many entries, or characters of text.
FRAME_ENTRIES: Final = 256
FRAME_CHARACTERS: Final = 1 << 20
# A single document fits, whatever its format.
MAX_FRAME_BYTES: Final = 512 << 20
_TAG: Final = "\0"
_READERS: Mapping[str, Callable[[str], object]] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "decimal": Decimal,
}

Entry = list[Any]


def entry_of(row: SourceRow | BadRow) -> Entry:
    """Returns the entry of a row or of a malformed row."""
    if isinstance(row, BadRow):
        return [row.location.line, row.reason]
    location, item = row
    vector = None
    if item.vector is not None:
        vector = base64.b64encode(np.ascontiguousarray(item.vector, "<f4").tobytes()).decode()
    return [location.line, item.id, item.title, item.text, item.attributes, vector]


def row_of(entry: Entry, source: str) -> SourceRow | BadRow:
    """Returns the row or malformed row of an entry."""
    location = SourceLocation(source, entry[0])
    if len(entry) == 2:
        return BadRow(location, entry[1])
    _, document_id, title, text, attributes, encoded = entry
    vector = None
    if encoded is not None:
        vector = np.frombuffer(base64.b64decode(encoded), "<f4").astype(np.float32)
    return SourceRow(
        location, Item(id=document_id, title=title, text=text, attributes=attributes, vector=vector)
    )


def pack(message: Mapping[str, object]) -> bytes:
    """Returns a frame."""
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"), default=_tagged)
    # Texts of JSON lines may hold half a surrogate pair, which later stages refuse.
    return text.encode("utf-8", "surrogatepass") + b"\n"


def unpack(line: bytes) -> Any:
    """Returns the content of a frame. Raises: ValueError: it is not a frame."""
    return json.loads(line.decode("utf-8", "surrogatepass"), object_hook=_untagged)


def _tagged(value: object) -> object:
    if isinstance(value, datetime):
        return {_TAG: ["datetime", value.isoformat()]}
    if isinstance(value, date):
        return {_TAG: ["date", value.isoformat()]}
    if isinstance(value, Decimal):
        return {_TAG: ["decimal", str(value)]}
    return {_TAG: ["other", type(value).__name__]}


def _untagged(value: dict[str, Any]) -> object:
    if len(value) != 1 or _TAG not in value:
        return value
    try:
        kind, text = value[_TAG]
        # A later stage refuses a value of another type by the name of the type.
        return type(text, (), {})() if kind == "other" else _READERS[kind](text)
    except (ValueError, TypeError, KeyError, ArithmeticError):
        return value

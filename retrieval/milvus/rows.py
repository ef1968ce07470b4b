"""Converts documents into rows of a Milvus collection, one per chunk, and attributes back.

The JSON field holds attributes in the kind of their column, as `filters` needs them. Attributes
that would not survive this conversion (integers among doubles, and values that fit no column) are
stored again under AS_WRITTEN in the form of a snapshot's file. Filters do not see those, as with
FAISS.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Attributes, AttributeValue
from nearline.errors import InvalidRequest
from nearline.items.attributes import decode, encode
from nearline.times import from_us, to_us
from retrieval.index.lexical.text_analysis import Analyser
from retrieval.milvus.layout import (
    MAX_TEXT_BYTES,
    NEVER_EXPIRES,
    SEPARATOR,
    make_key,
)

# Longest JSON field. Source: limits of Milvus.
MAX_ATTRIBUTES_BYTES = 65_536
# A key has six digits for the chunk number.
MAX_CHUNKS = 1_000_000
AS_WRITTEN = "$as_written"
_NUL = "\0"
# Exact types that fit a column; a bool is not an int here.
_FITTING: Mapping[str, frozenset[type]] = {
    "string": frozenset({str}),
    "int": frozenset({int}),
    "double": frozenset({float, int}),
    "bool": frozenset({bool}),
    "time": frozenset({datetime}),
}


def make_rows(
    document_id: str,
    title: str,
    text: str,
    attributes: Attributes,
    *,
    version: int,
    expires: datetime | None,
    bounds: NDArray[np.int64],
    vectors: NDArray[np.float32],
    kinds: Mapping[str, str],
    analyser: Analyser | None,
) -> list[dict[str, Any]]:
    """Returns the rows of a document; see `layout`.

    Args:
        document_id, title, text, attributes: The document; times are timezone-aware.
        version: Number of the last live change; 0 if there was none.
        expires: Expiry, timezone-aware; None if the document does not expire.
        bounds: (chunks, 2) start and end of each chunk in code points; the end is exclusive.
        vectors: (chunks, d) float32.
        kinds: Kinds of the snapshot's attributes, by name.
        analyser: Splits chunks into words. If None, the collection stores no words.
    Raises: InvalidRequest: Milvus cannot store the document; names field, limit and remedy.
    """
    _check_id(document_id)
    if len(bounds) > MAX_CHUNKS:
        raise InvalidRequest(
            f"item {document_id!r} has {len(bounds):,} chunks; with Milvus {MAX_CHUNKS:,} are "
            "allowed. Split it into several items",
            field="text",
        )
    _check_text(document_id, "title", title, "shorten it")
    common = {
        "document": document_id,
        "title": title,
        "attributes": stored_attributes(document_id, attributes, kinds),
        "version": version,
        "expires": NEVER_EXPIRES if expires is None else to_us(expires),
    }
    rows: list[dict[str, Any]] = []
    reached = 0
    for number, (start, stop) in enumerate(bounds.tolist()):
        row = {
            **common,
            "key": make_key(document_id, number),
            "chunk": number,
            "start": start,
            "stop": stop,
            "gap": text[reached:start],
            "passage": text[start:stop],
            "rest": "",
            "vector": vectors[number],
        }
        if analyser is not None:
            row["analysed"] = " ".join(analyser.words(f"{title} {row['passage']}"))
        rows.append(row)
        reached = max(reached, stop)
    if rows:
        rows[-1]["rest"] = text[reached:]
    for row in rows:
        for field in ("gap", "passage", "rest", "analysed"):
            _check_text(document_id, "text", row.get(field, ""), "split documents into chunks")
    return rows


def parse_attributes(stored: Mapping[str, Any], kinds: Mapping[str, str]) -> Attributes:
    """Returns the attributes of a document from the field `attributes` of one of its rows."""
    attributes = {
        name: _times(value) if kinds.get(name) == "time" else value
        for name, value in stored.items()
        if name != AS_WRITTEN
    }
    if AS_WRITTEN in stored:
        attributes |= decode(json.dumps(stored[AS_WRITTEN]))
    return attributes


def stored_attributes(
    document_id: str, attributes: Attributes, kinds: Mapping[str, str]
) -> dict[str, Any]:
    """Returns the field `attributes` of the rows of a document.

    Raises: InvalidRequest: Milvus cannot store the attributes.
    """
    stored: dict[str, Any] = {}
    written: dict[str, AttributeValue] = {}
    for name, value in attributes.items():
        if value is None:
            continue
        kind = kinds.get(name)
        several: list[Any] = value if isinstance(value, list) else [value]
        fitting = [] if kind is None else [one for one in several if type(one) in _FITTING[kind]]
        if fitting or (kind is not None and not several):
            kept = [_in_column(one, kind) for one in fitting]
            stored[name] = kept if isinstance(value, list) else kept[0]
        whole = kind == "double" and int in map(type, several)
        if kind is None or whole or len(fitting) < len(several):
            written[name] = value
    if AS_WRITTEN in attributes:
        raise InvalidRequest(
            f"item {document_id!r} has an attribute {AS_WRITTEN!r}, which is reserved with Milvus; "
            "rename it",
            field="attributes",
        )
    if written:
        stored[AS_WRITTEN] = json.loads(encode(written))
    size = len(json.dumps(stored, ensure_ascii=False, separators=(",", ":")).encode())
    if size > MAX_ATTRIBUTES_BYTES:
        raise InvalidRequest(
            f"item {document_id!r} has attributes of {size:,} bytes as JSON; Milvus allows "
            f"{MAX_ATTRIBUTES_BYTES:,}. Remove attributes that are neither filtered by nor shown",
            field="attributes",
        )
    return stored


def _in_column(value: Any, kind: str | None) -> object:
    if kind == "time":
        return to_us(value)
    return float(value) if kind == "double" else value


def _times(value: Any) -> AttributeValue:
    return [from_us(one) for one in value] if isinstance(value, list) else from_us(value)


def _check_id(document_id: str) -> None:
    for sign in (_NUL, SEPARATOR):
        if sign in document_id:
            raise InvalidRequest(
                f"the id {document_id!r} has U+{ord(sign):04X}, which is not allowed in ids with "
                "Milvus; use another id",
                field="id",
            )


def _check_text(document_id: str, field: str, text: str, remedy: str) -> None:
    if _NUL in text:
        raise InvalidRequest(
            f"the {field} of item {document_id!r} has U+0000, where Milvus ends texts; remove it",
            field=field,
        )
    size = len(text.encode())
    if size > MAX_TEXT_BYTES:
        raise InvalidRequest(
            f"a piece of the {field} of item {document_id!r} has {size:,} bytes; Milvus allows "
            f"{MAX_TEXT_BYTES:,}: {remedy}",
            field=field,
        )

"""Attributes as typed Arrow columns: one record per document, in the order of items.arrow.

Columns: string, int64, double, bool, timestamp[us, UTC], or a list of one of these if any document
has a list; null if a document has no value. A batch holds at most 4,096 documents.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from nearline.contract import Attributes, AttributeValue
from nearline.counts import counted
from nearline.errors import InvalidRequest
from nearline.filters import kind_of
from nearline.items.attributes import LIST, decode
from nearline.store.snapshot import KIND_NAMES
from nearline.v1 import snapshot_pb2
from retrieval.index.filtering.attribute_table import attributes_schema

MAX_FIELDS = 1_024
# Most columns of a snapshot that also keeps those without a value.
_MOST_EMPTY = 128
_BATCH_DOCUMENTS = 4_096
_PROBLEMS_SHOWN = 5
_Field = snapshot_pb2.AttributeField
_KINDS: Mapping[str, str] = {name: f"KIND_{name.upper()}" for name in KIND_NAMES.values()}
_WORDS = {
    "string": "text",
    "int": "a whole number",
    "double": "a number",
    "bool": "a truth value",
    "time": "a time",
}


@dataclass(slots=True)
class _AttributeStats:
    """Statistics of one attribute: documents by kind, and the first location of each kind."""

    documents: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    is_list: bool = False

    def add(self, value: AttributeValue, place: str) -> None:
        if isinstance(value, list):
            self.is_list = True
            kinds = {kind_of(element) for element in value}
        else:
            kinds = {kind_of(value)}
        for kind in kinds:
            self.documents[kind] = self.documents.get(kind, 0) + 1
            self.first.setdefault(kind, place)

    def kind(self) -> str | None:
        """Returns the kind that holds every value; None if no single kind does."""
        if len(self.documents) > 1:
            return "double" if self.documents.keys() == {"int", "double"} else None
        # There were only empty lists, which fit any kind.
        return next(iter(self.documents), "string")


def infer_fields(
    documents: Iterable[tuple[str, str]],
    declared: Mapping[str, str],
    notes: list[str] | None = None,
    inferred: Collection[str] = (),
) -> list[snapshot_pb2.AttributeField]:
    """Infers the name and kind of every attribute; integers mixed with decimals become doubles.

    Args:
        documents: Attributes of all documents as JSON, each with its place for messages.
        declared: Kinds declared by the user, by name; their values already have that kind.
        notes: Optional; receives a note about attributes that would be refused, which are then left
            out: they are kept but cannot be filtered on. For unattended builds.
        inferred: Declared names that the documents of earlier builds brought. If no document has
            them any more, they are left out where there are more than 128 columns.
    Returns: Fields in order of their names.
    Raises: InvalidRequest: an attribute has several kinds, or those declared and others are more
        than 1,024.
    """
    seen: dict[str, _AttributeStats] = {}
    kept = declared.keys() - set(inferred)
    many, left = False, MAX_FIELDS - len(kept)
    for text, place in documents:
        if text == "{}":
            continue
        for name, value in decode(text).items():
            if name not in seen:
                if name not in declared and left <= 0:
                    if notes is not None:
                        many = True
                        continue
                    raise InvalidRequest(
                        f"there are more than {MAX_FIELDS:,} attributes ({place} adds "
                        f"{name!r}); select the ones you need with --attribute-columns",
                        field="attributes",
                    )
                seen[name] = _AttributeStats()
                left -= name not in declared
            seen[name].add(value, place)
    # Names that documents brought earlier have their places before new ones.
    known = kept | (declared.keys() & seen.keys())
    new = [name for name in seen if name not in declared]
    for name in new[max(0, MAX_FIELDS - len(known)) :]:
        del seen[name]
        many = True
    # A filter on an attribute that no item has at the moment finds nothing, and is no error.
    empty = sorted(declared.keys() - known)[: max(0, _MOST_EMPTY - len(known | seen.keys()))]
    problems = {}
    fields = []
    for name in sorted(known | seen.keys() | set(empty)):
        found = seen.get(name, _AttributeStats())
        given = declared.get(name, "")
        kind = given.removesuffix(LIST) or found.kind()
        if kind is None:
            problems[name] = found
        else:
            is_list = found.is_list or given.endswith(LIST)
            by_items = name in inferred or name not in declared
            fields.append(_Field(name=name, kind=_KINDS[kind], is_list=is_list, inferred=by_items))
    if notes is not None:
        notes += [f"{_kinds(*one)}: it cannot be filtered on" for one in problems.items()]
        if many:
            notes.append(f"attributes beyond {MAX_FIELDS:,} cannot be filtered on")
    elif problems:
        shown = [_problem(*one) for one in problems.items()][:_PROBLEMS_SHOWN]
        more = len(problems) - _PROBLEMS_SHOWN
        raise InvalidRequest(
            "each attribute needs a single kind to be filtered on:\n"
            + "\n".join(shown)
            + (f"\n  and {more} more" if more > 0 else ""),
            field="attributes",
        )
    return fields


def write_attributes(
    path: Path, fields: Sequence[snapshot_pb2.AttributeField], documents: Iterable[str]
) -> None:
    """Writes the attributes of a shard.

    Args:
        path: The file to write.
        fields: The columns; other attributes are left out.
        documents: Attributes as JSON, in id order; memory holds one batch at a time.
    Raises: OSError: no space, no permission.
    """
    schema = attributes_schema(fields)
    with path.open("wb") as stream, pa.ipc.new_file(stream, schema) as writer:
        remaining = iter(documents)
        while rows := [decode(text) for text in islice(remaining, _BATCH_DOCUMENTS)]:
            columns = [_column(field, rows, schema.field(field.name).type) for field in fields]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _column(
    field: snapshot_pb2.AttributeField, rows: Sequence[Attributes], column_type: pa.DataType
) -> pa.Array:
    values: list[Any] = [row.get(field.name) for row in rows]
    if field.is_list:
        values = [v if v is None or isinstance(v, list) else [v] for v in values]
    column = pa.array(values, column_type)
    if field.kind != _Field.KIND_DOUBLE:
        return column
    # Arrow's hash tables distinguish -0.0 from 0.0; keep only the latter.
    if not field.is_list:
        return pc.add(column, 0.0)
    numbers = pc.add(column.values, 0.0)
    return pa.ListArray.from_arrays(column.offsets, numbers, mask=column.is_null())


def _kinds(name: str, found: _AttributeStats) -> str:
    """Returns the kinds of an attribute, the most frequent first."""
    counts = " and ".join(
        f"{_WORDS[kind]} in {counted(number, 'document')} (first in {found.first[kind]})"
        for kind, number in sorted(found.documents.items(), key=lambda one: -one[1])
    )
    return f"{name!r} is {counts}"


def _problem(name: str, found: _AttributeStats) -> str:
    main = max(found.documents, key=found.documents.__getitem__)
    lists = LIST * found.is_list
    return (
        f"  {_kinds(name, found)}; declare it: --attribute {name}:string{lists} keeps every value "
        f"as text, --attribute {name}:{main}{lists} counts values other than {_WORDS[main]} as "
        "malformed rows; or exclude it with --attribute-columns"
    )

"""Items to write, from JSON lines or a table, with the place of each; loads the readers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from index_builder.documents.bad_rows import BadRow, BadRows
from index_builder.documents.records import SourceLocation, SourceRow
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.delimited import read_delimited
from index_builder.readers.json_lines import read_json_lines
from nearline.attributes import clean
from nearline.contract import Item
from nearline.documents import check_id, clean_document
from nearline.errors import InvalidRequest

STDIN = "-"
_STDIN_PATH = "/dev/stdin"
_JSON_LINES = {".jsonl", ".ndjson"}
_DELIMITED = {".csv", ".tsv"}
_PARQUET = {".parquet"}
# Files with an item on each row.
KINDS = frozenset(_JSON_LINES | _DELIMITED | _PARQUET)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemColumns:
    """Which column is what; empty: the default of a build. expires: Of times; empty: none."""

    id: str = ""
    title: str = ""
    text: str = ""
    vector: str = ""
    expires: str = ""


class ItemRow(NamedTuple):
    """An item, and where it was read."""

    location: SourceLocation
    item: Item


class _PendingBadRows(BadRows):
    """Malformed rows that are still to be told of."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[BadRow] = []

    def add(self, location: SourceLocation, reason: str) -> None:
        self.waiting.append(BadRow(location, reason))

    def take(self) -> list[BadRow]:
        told, self.waiting = self.waiting, []
        return told


def read_items(
    source: str, columns: ItemColumns, *, only_attributes: bool = False
) -> Iterator[ItemRow | BadRow]:
    """Yields the items of a file in order, and the malformed rows among them.

    Args:
        source: File of JSON lines or, by its name, CSV, TSV or Parquet; "-": JSON lines of standard
            input.
        columns: Which column is what.
        only_attributes: Take rows without a text, and of each row the attributes alone; None
            among them stays, for it removes.
    Raises: InvalidRequest: no such file, or one of another kind.
    """
    kind = "" if source == STDIN else Path(source).suffix.lower()
    if kind and kind not in KINDS:
        known = ", ".join(sorted(KINDS))
        raise InvalidRequest(
            f"{source} is none of {known}; files of other kinds are read by nearline build",
            field="file",
        )
    if source != STDIN and not Path(source).is_file():
        raise InvalidRequest(
            f"there is no file {source}; give a file, or - to read it", field="file"
        )
    told = _PendingBadRows()
    path = Path(_STDIN_PATH if source == STDIN else source)
    name = "stdin" if source == STDIN else source
    for row in _reader(kind)(path, name, _of(columns, only_attributes), told):
        yield from told.take()
        try:
            item = _item(row.item, columns, only_attributes)
        except InvalidRequest as error:
            yield BadRow(row.location, error.message)
        else:
            yield ItemRow(row.location, item)
    yield from told.take()


def _reader(kind: str) -> Callable[[Path, str, DocumentColumns, BadRows], Iterator[SourceRow]]:
    if kind in _PARQUET:
        # Imported late: other kinds do without pyarrow.
        from index_builder.readers.parquet import read_parquet

        return read_parquet
    return read_delimited if kind in _DELIMITED else read_json_lines


def _of(columns: ItemColumns, only_attributes: bool) -> DocumentColumns:
    return DocumentColumns(
        id=columns.id,
        title=columns.title,
        text=columns.text,
        vector=columns.vector,
        needs_text=not only_attributes,
    )


def _item(item: Item, columns: ItemColumns, only_attributes: bool) -> Item:
    attributes = dict(item.attributes)
    expires = attributes.pop(columns.expires, None) if columns.expires else None
    if only_attributes:
        check_id(item.id)
        removed = {name: None for name, value in attributes.items() if value is None}
        return Item(id=item.id, attributes={**clean(attributes), **removed})
    whole = clean_document(replace(item, attributes=attributes), title_only=True)
    return replace(whole, expires=None if expires is None else _time(columns.expires, expires))


def _time(name: str, value: object) -> datetime | None:
    time = clean({name: value}, {name: "time"}).get(name)
    assert time is None or isinstance(time, datetime)
    return time

"""Reads items from JSON lines or tables, with the place of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from index_builder.documents.bad_rows import BadRow, BadRows, DamagedFile
from index_builder.documents.records import SourceLocation, SourceRow
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.delimited import read_delimited
from index_builder.readers.json_lines import read_json_lines
from nearline.contract import Item
from nearline.errors import InvalidRequest
from nearline.items.attributes import clean
from nearline.items.documents import check_id, clean_document
from nearline_cli.inputs.item_columns import ItemColumns

STDIN = "-"
_STDIN_PATH = "/dev/stdin"
_JSON_LINES = {".jsonl", ".ndjson"}
_DELIMITED = {".csv", ".tsv"}
_PARQUET = {".parquet"}
# Files with an item on each row.
KINDS = frozenset(_JSON_LINES | _DELIMITED | _PARQUET)


class ItemRow(NamedTuple):
    """An item, and where it was read."""

    location: SourceLocation
    item: Item


class _PendingBadRows(BadRows):
    """Malformed rows that are not reported yet."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[BadRow] = []

    def add(self, location: SourceLocation, reason: str) -> None:
        self.waiting.append(BadRow(location, reason))

    def take(self) -> list[BadRow]:
        rows, self.waiting = self.waiting, []
        return rows


def read_items(
    source: str, columns: ItemColumns, *, only_attributes: bool = False
) -> Iterator[ItemRow | BadRow]:
    """Yields the items of a file in order, and the malformed rows among them.

    Args:
        source: File of JSON lines, CSV, TSV or Parquet, by its suffix; "-" reads JSON lines from
            standard input.
        columns: Names of the columns.
        only_attributes: Accept rows without text, and take only their attributes; a null value,
            which removes the attribute, is kept.
    Raises:
        InvalidRequest: The file does not exist, or is of another kind.
    """
    if Path(source).is_dir():
        raise InvalidRequest(
            f"{source} is a folder; submit it with nearline ingest {source}", field="file"
        )
    kind = "" if source == STDIN else Path(source).suffix.lower()
    if kind and kind not in KINDS:
        known = ", ".join(sorted(KINDS))
        raise InvalidRequest(
            f"{source} is not one of {known}; nearline build reads other kinds of files",
            field="file",
        )
    if source != STDIN and not Path(source).is_file():
        raise InvalidRequest(
            f"there is no file {source}; name a file, or - for standard input", field="file"
        )
    bad_rows = _PendingBadRows()
    path = Path(_STDIN_PATH if source == STDIN else source)
    name = "stdin" if source == STDIN else source
    rows = _reader(kind)(path, name, _document_columns(columns, only_attributes), bad_rows)
    try:
        for row in rows:
            yield from bad_rows.take()
            try:
                item = _item(row.item, columns, only_attributes)
            except InvalidRequest as error:
                yield BadRow(row.location, error.message)
            else:
                yield ItemRow(row.location, item)
    except DamagedFile as error:
        if error.line == 1:
            # None of it can be read, so that nothing was done yet.
            raise
        bad_rows.add(SourceLocation(name, error.line), error.message)
    yield from bad_rows.take()


def _reader(kind: str) -> Callable[[Path, str, DocumentColumns, BadRows], Iterator[SourceRow]]:
    if kind in _PARQUET:
        # Imported late: other kinds do without pyarrow.
        from index_builder.readers.parquet import read_parquet

        return read_parquet
    return read_delimited if kind in _DELIMITED else read_json_lines


def _document_columns(columns: ItemColumns, only_attributes: bool) -> DocumentColumns:
    return DocumentColumns(
        id=columns.id_column,
        title=columns.title_column,
        text=columns.text_column,
        vector=columns.vector_column,
        needs_text=not only_attributes,
    )


def _item(item: Item, columns: ItemColumns, only_attributes: bool) -> Item:
    attributes = dict(item.attributes)
    expires = attributes.pop(columns.expires_column, None) if columns.expires_column else None
    if only_attributes:
        check_id(item.id)
        removed = {name: None for name, value in attributes.items() if value is None}
        return Item(id=item.id, attributes={**clean(attributes), **removed})
    whole = clean_document(replace(item, attributes=attributes), title_only=True)
    return replace(
        whole, expires=None if expires is None else _time(columns.expires_column, expires)
    )


def _time(name: str, value: object) -> datetime | None:
    time = clean({name: value}, {name: "time"}).get(name)
    assert time is None or isinstance(time, datetime)
    return time

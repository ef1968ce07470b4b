"""Reads items from JSON lines or tables, with the place of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from index_builder.documents.bad_rows import EMPTY_FILE, BadRow, DamagedFile, in_order
from index_builder.documents.detected_lists import DetectedList, DetectedLists
from index_builder.documents.records import SourceLocation
from index_builder.options.declared_attributes import (
    chosen_attributes,
    declared_kinds,
    list_names,
)
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.formats import TABLES, table_reader
from nearline.contract import Item
from nearline.errors import InvalidRequest
from nearline.items.attributes import clean
from nearline.items.documents import check_id, clean_document
from nearline_cli.inputs.item_columns import ItemColumns

STDIN = "-"
_STDIN_PATH = "/dev/stdin"


class ItemRow(NamedTuple):
    """An item, and where it was read."""

    location: SourceLocation
    item: Item


def read_items(
    source: str,
    columns: ItemColumns,
    *,
    only_attributes: bool = False,
    on_list: Callable[[DetectedList], None] | None = None,
) -> Iterator[ItemRow | BadRow]:
    """Yields the items of a file in order, and the malformed rows among them.

    Args:
        source: File of JSON lines, CSV, TSV or Parquet, by its suffix; "-" reads JSON lines from
            standard input.
        columns: Names of the columns.
        only_attributes: Accept rows without text, and take only their attributes; a null value,
            which removes the attribute, is kept.
        on_list: Called with each attribute whose cells are read as lists undeclared. Optional.
    Raises:
        InvalidRequest: The file does not exist, or is of another kind.
    """
    if Path(source).is_dir():
        raise InvalidRequest(
            f"{source} is a folder; submit it with nearline ingest {source}", field="file"
        )
    kind = "" if source == STDIN else Path(source).suffix.lower()
    if kind and kind not in TABLES:
        known = ", ".join(sorted(TABLES))
        raise InvalidRequest(
            f"{source} is not one of {known}; nearline build reads other kinds of files",
            field="file",
        )
    if source != STDIN and not Path(source).is_file():
        raise InvalidRequest(
            f"there is no file {source}; name a file, or - for standard input", field="file"
        )
    path = Path(_STDIN_PATH if source == STDIN else source)
    name = "stdin" if source == STDIN else source
    if source != STDIN and path.stat().st_size == 0:
        yield BadRow(SourceLocation(name, 0), EMPTY_FILE)
        return
    declared = declared_kinds(columns.attribute or ())
    lists = DetectedLists(declared, on_list)
    document_columns = _document_columns(columns, declared, only_attributes)
    try:
        for row in in_order(partial(table_reader(kind), path, name, document_columns)):
            if isinstance(row, BadRow):
                yield row
                continue
            try:
                item = _item(row.item, columns, declared, only_attributes)
            except InvalidRequest as error:
                yield BadRow(row.location, error.message)
            else:
                lists.see(name, row.item.attributes)
                yield ItemRow(row.location, item)
    except DamagedFile as error:
        if error.line == 1:
            # None of it can be read, so that nothing was done yet.
            raise
        yield BadRow(SourceLocation(name, error.line), error.message)


def _document_columns(
    columns: ItemColumns, declared: Mapping[str, str], only_attributes: bool
) -> DocumentColumns:
    choice = chosen_attributes(columns.attribute_columns)
    chosen = choice["attributes"]
    if chosen is not None and columns.expires_column:
        choice["attributes"] = [*chosen, columns.expires_column]
    return DocumentColumns(
        **choice,
        declared=tuple(declared),
        lists=list_names(declared),
        id=columns.id_column,
        title=columns.title_column,
        text=columns.text_column,
        vector=columns.vector_column,
        needs_text=not only_attributes,
    )


def _item(
    item: Item, columns: ItemColumns, declared: Mapping[str, str], only_attributes: bool
) -> Item:
    attributes = dict(item.attributes)
    expires = attributes.pop(columns.expires_column, None) if columns.expires_column else None
    if only_attributes:
        check_id(item.id)
        removed = {name: None for name, value in attributes.items() if value is None}
        return Item(id=item.id, attributes={**clean(attributes, declared), **removed})
    whole = clean_document(replace(item, attributes=attributes), declared, title_only=True)
    return replace(
        whole, expires=None if expires is None else _time(columns.expires_column, expires)
    )


def _time(name: str, value: object) -> datetime | None:
    time = clean({name: value}, {name: "time"}).get(name)
    assert time is None or isinstance(time, datetime)
    return time

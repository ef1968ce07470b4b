"""Spreadsheets: each row with the headers of its columns."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from io import StringIO
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from index_builder.readers.office.archives import Archive
from index_builder.readers.protocol import ParsedDocument, UnreadableFile, check_size

MAX_CELLS = 2_000_000
MAX_CHARACTERS = 64 << 20
_MAX_HEADER = 80  # Characters; longer cells are text.
_MAX_MERGED = 5_000
_MAX_MERGED_COLUMNS = 64
_MERGED = re.compile(rb'<(?:\w+:)?mergeCell\b[^>]*?\bref="([A-Z]{1,3}\d{1,7}:[A-Z]{1,3}\d{1,7})"')
_DECIMALS = re.compile(r"0\.(0+)")
_NUMBER = re.compile(r"[-+]?[€$£¥]? ?\d[\d.,:/ -]{0,30}(?: ?[%€$£¥])?")
_CURRENCY = re.compile(r"[€$£¥]")


class Value(NamedTuple):
    """The text of a cell. spans: Whether it is that of the merged cell to its left."""

    text: str
    is_number: bool = False
    is_bold: bool = False
    spans: bool = False


_EMPTY = Value("")


def sheets_text(sheets: Iterable[tuple[str, Iterable[Sequence[Value]]]]) -> str:
    """Returns the structured text of sheets, from their names and rows."""
    blocks: list[str] = []
    cells = characters = 0
    for name, rows in sheets:
        heading = f"## Sheet: {name}" if name else ""
        block: list[str] = []
        table = _Table()
        for row, next_ in pairwise(chain(rows, [()])):
            cells += len(row) + 1
            line = table.line(row, next_)
            characters += len(line)
            if cells > MAX_CELLS or characters > MAX_CHARACTERS:
                bound = f"{MAX_CELLS} cells or {MAX_CHARACTERS} characters"
                raise UnreadableFile(
                    f"more than {bound}; split it, or save it as CSV, whose rows become documents"
                )
            if line.startswith("- "):
                block.append(line)
            elif line or block:
                blocks += [heading, "\n".join(block), line]
                heading, block = "", []
        blocks += [heading, "\n".join(block)] if block else []
    return "\n\n".join(block for block in blocks if block)


class _Table:
    """The rows of a sheet; its header may change after an empty row."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._above: dict[int, str] = {}  # Of a first row of headers, above the second.
        self._fresh = True

    def line(self, row: Sequence[Value], next_: Sequence[Value]) -> str:
        """Returns the text of a row; that of a header or an empty row is empty."""
        filled = {at: value for at, value in enumerate(row) if value.text}
        own = [value for value in filled.values() if not value.spans]
        if not filled:
            self._fresh = True
            return ""
        if self._fresh and len(own) == 1 and not own[0].is_number:
            return own[0].text
        if (self._fresh or self._above) and self._is_header(filled, next_):
            texts = {at: value.text for at, value in filled.items()}
            names = {
                at: " ".join(dict.fromkeys(filter(None, (self._above.get(at), text))))
                for at, text in texts.items()
            }
            self._names, self._fresh = self._above | names, False
            self._above = texts if len(own) < len(filled) else {}
            return ""
        self._fresh, self._above = False, {}
        if not self._names and len(own) == 2:
            return f"- {own[0].text.rstrip(' :')}: {own[1].text}"
        pieces = (
            f"{self._names[at]}: {value.text}" if at in self._names else value.text
            for at, value in filled.items()
            if not value.spans
        )
        return "- " + "; ".join(pieces)

    def _is_header(self, filled: dict[int, Value], next_: Sequence[Value]) -> bool:
        values = filled.values()
        below = [value for value in next_ if value.text]
        if any(value.is_number or len(value.text) > _MAX_HEADER for value in values):
            return False
        if len(filled) < 2 or not below:
            return False
        bold = all(value.is_bold for value in values) > all(value.is_bold for value in below)
        merged = any(value.spans for value in values)
        # Such as open and close below each year.
        repeats = bool(self._above) and len({value.text for value in values}) < len(filled)
        # Text above text: names, unless it is a form of terms and values.
        names = not self._names and len(filled) > 2
        return bold or merged or repeats or names or any(value.is_number for value in below)


def workbook_text(path: Path, archive: Archive) -> str:
    """Returns the structured text of an Excel file: what its formulas gave when it was saved."""
    from openpyxl import load_workbook

    book = load_workbook(path, read_only=True, data_only=True, keep_links=False)
    sheets = (sheet for sheet in book.worksheets if sheet.sheet_state == "visible")
    return sheets_text((sheet.title, _rows(sheet, archive)) for sheet in sheets)


def parse_delimited(path: Path) -> ParsedDocument:
    """Reads a .csv or .tsv file as a sheet; its columns are separated by a comma, ";" or tab.

    Raises: UnreadableFile: the file is too large, not UTF-8, damaged or without text. OSError.
    """
    check_size(path, MAX_CHARACTERS)
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableFile("not UTF-8; save it as UTF-8") from error
    separator = max(",;\t", key=text.partition("\n")[0].count)
    rows = csv.reader(StringIO(text, newline=""), delimiter=separator)
    try:
        values = ([Value(cell.strip(), _is_number(cell)) for cell in row] for row in rows)
        text = sheets_text([("", values)])
    except csv.Error as error:
        raise UnreadableFile(f"line {rows.line_num}: {error}; close the quotes") from error
    if not text:
        raise UnreadableFile("the file has no text; add some, or leave it out")
    return ParsedDocument("", text)


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell.strip()) is not None


def _rows(sheet: Any, archive: Archive) -> Iterator[list[Value]]:
    # Sizes that files declare are often wrong.
    sheet.reset_dimensions()
    merged = _merged(archive.read(sheet._worksheet_path.lstrip("/")))
    open_: dict[int, tuple[int, Value]] = {}  # Cells merged with rows below, by column.
    was_empty = False
    for number, cells in enumerate(sheet.rows, start=1):
        if not (cells or open_ or number in merged):
            # The last row may be a million below the others.
            if not was_empty:
                yield []
            was_empty = True
            continue
        was_empty = False
        row = [_value(cell) for cell in cells]
        for column, (last, value) in list(open_.items()):
            if number <= last:
                row += [_EMPTY] * (column - len(row))
                row[column - 1] = value
            else:
                del open_[column]
        for left, right, last in merged.get(number, ()):
            value = row[left - 1] if left <= len(row) else _EMPTY
            row += [_EMPTY] * (right - len(row))
            row[left:right] = [value._replace(spans=True)] * (right - left)
            if last > number and value.text:
                open_[left] = (last, value)
        yield row


def _merged(data: bytes) -> dict[int, list[tuple[int, int, int]]]:
    """Returns merged cells by their first row: first and last column, last row; from 1."""
    from openpyxl.utils import range_boundaries

    found: dict[int, list[tuple[int, int, int]]] = {}
    for count, match in enumerate(_MERGED.finditer(data)):
        if count == _MAX_MERGED:
            break
        left, top, right, bottom = range_boundaries(match[1].decode("ascii"))
        right = min(right, left + _MAX_MERGED_COLUMNS)
        found.setdefault(top, []).append((left, right, bottom))
    return found


def _value(cell: Any) -> Value:
    value = cell.value
    if value is None:
        return _EMPTY
    if isinstance(value, str):
        return Value(" ".join(value.split()), is_bold=bool(cell.font and cell.font.b))
    return Value(_number(value, cell.number_format or ""), is_number=True)


def _number(value: object, form: str) -> str:
    """Returns a number or time as its cell shows it, simplified."""
    if isinstance(value, datetime):
        return str(value.date() if value.time() == time() else value.replace(microsecond=0))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, time):
        return value.isoformat("minutes" if not value.second else "seconds")
    if isinstance(value, (date, timedelta)) or not isinstance(value, (int, float)):
        return str(value)
    decimals, currency = _DECIMALS.search(form), _CURRENCY.search(form)
    places = len(decimals[1]) if decimals else None
    if "%" in form:
        shown = f"{value * 100:.{places}f}" if places else f"{round(value * 100, 6):g}"
        return f"{shown} %"
    shown = f"{value:.{places}f}" if places and places < 6 else f"{value:.12g}"
    return f"{shown} {currency[0]}" if currency else shown

"""Reads CSV and TSV: a header line, then one record per row.

Cells are text. An attribute column becomes lists, integers, numbers, booleans or times if every
non-empty cell parses as one; this takes a first pass over the file. Declared attributes stay text
here, or lists of texts; `attributes.clean` parses them.
"""

from __future__ import annotations

import contextlib
import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from index_builder.documents.bad_rows import BadRows, DamagedFile
from index_builder.documents.records import SourceLocation, SourceRow
from index_builder.readers.cells import ColumnKind, Parse, read_list
from index_builder.readers.columns import DocumentColumns
from nearline.errors import InvalidRequest

MAX_LINE_CHARACTERS = 16 << 20
# Bytes that are not UTF-8 become these, so that only their row is refused.
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")

_Record = tuple[int, dict[str, str], str]


def read_delimited(
    path: Path, source: str, columns: DocumentColumns, bad_rows: BadRows
) -> Iterator[SourceRow]:
    """Yields the rows of a .csv or .tsv file.

    Raises: InvalidRequest: the file has no header, or the header lacks a named column. DamagedFile:
        the rest of the file cannot be read.
    """
    parsers = _column_parsers(path, source, columns)
    for line, record, problem in _records(path, source, columns):
        location = SourceLocation(source, line)
        try:
            if problem:
                raise InvalidRequest(problem)
            attributes = {
                name: parse(record[name]) if record[name] else None
                for name, parse in parsers.items()
            }
            values: dict[str, object] = dict(record)
            if columns.vector:
                values[columns.vector] = _vector(record[columns.vector])
            yield SourceRow(location, columns.item(values, attributes))
        except InvalidRequest as error:
            bad_rows.add(location, error.message)


def lacks_columns(path: Path, columns: DocumentColumns) -> bool:
    """Returns whether the header of a .csv or .tsv file lacks a named column."""
    try:
        next(_records(path, "", columns), None)
    except InvalidRequest:
        return True
    except DamagedFile:
        pass
    return False


def _column_parsers(path: Path, source: str, columns: DocumentColumns) -> dict[str, Parse]:
    """Returns a parser of the cells of each attribute column."""
    kinds: dict[str, ColumnKind] | None = None
    names: Sequence[str] = ()
    for _, record, problem in _readable(_records(path, source, columns)):
        if problem:
            continue
        if kinds is None:
            names = columns.attribute_names(list(record))
            kinds = {name: ColumnKind() for name in names if name not in columns.declared}
        for name, kind in kinds.items():
            kind.add(record[name])
    parsers = dict.fromkeys(names, str) | {
        name: kind.parser() for name, kind in (kinds or {}).items()
    }
    return parsers | {name: read_list for name in names if name in columns.lists}


def _vector(cell: str) -> object:
    try:
        return json.loads(cell) if cell else None
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("the vector is not a JSON list of numbers") from error


def _readable(records: Iterator[_Record]) -> Iterator[_Record]:
    """Yields records up to the damage of a file, which is reported when its rows are read."""
    with contextlib.suppress(DamagedFile):
        yield from records


def _records(path: Path, source: str, columns: DocumentColumns) -> Iterator[_Record]:
    """Yields (line, cells by column, error of the row or "")."""
    csv.field_size_limit(MAX_LINE_CHARACTERS)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        lines = _Lines(stream, source)
        rows = csv.reader(lines, delimiter=delimiter)
        line = 1
        try:
            header = next(rows, None)
            if not header:
                raise InvalidRequest(f"{source} is empty; its first line must name the columns")
            if any(map(_ESCAPED_BYTE.search, header)):
                # Nothing can be read from the file, which may be of another kind.
                yield line, {}, "the header is not UTF-8; is the file text?"
                return
            columns.check_names(header, source)
            line = rows.line_num + 1
            for cells in rows:
                if cells:
                    problem = ""
                    # A row that is whole needs no line beyond its own.
                    if lines.ended:
                        problem = "a quote is never closed; close it, or write it twice"
                    elif len(cells) != len(header):
                        problem = f"{len(cells)} cells, the header has {len(header)}"
                    elif any(_ESCAPED_BYTE.search(cell) for cell in cells):
                        problem = "not UTF-8"
                    yield line, dict(zip(header, cells, strict=False)), problem
                line = rows.line_num + 1
        except csv.Error as error:
            raise DamagedFile(
                f"the rest of {source} cannot be read ({error}); close the quotes of its cells, "
                f"which may have {MAX_LINE_CHARACTERS} characters",
                line,
            ) from error


class _Lines:
    """The lines of a file.

    ended: Whether a line was asked for after the last one.
    """

    def __init__(self, stream: TextIO, source: str) -> None:
        self._stream = stream
        self._source = source
        self._number = 0
        self.ended = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """Returns the next line. Raises: DamagedFile: it is too long."""
        line = self._stream.readline(MAX_LINE_CHARACTERS + 1)
        if not line:
            self.ended = True
            raise StopIteration
        self._number += 1
        if len(line) > MAX_LINE_CHARACTERS:
            raise DamagedFile(
                f"{self._source} has a line of more than the {MAX_LINE_CHARACTERS} characters "
                "allowed; split it",
                self._number,
            )
        return line

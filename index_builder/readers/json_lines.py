"""Reads JSON lines: one object per line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from index_builder.documents.bad_rows import BadRows
from index_builder.documents.records import SourceLocation, SourceRow
from index_builder.readers.columns import DocumentColumns
from nearline.errors import InvalidRequest

_SPACE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"


def read_json_lines(
    path: Path, source: str, columns: DocumentColumns, bad_rows: BadRows
) -> Iterator[SourceRow]:
    """Yields the rows of a file; empty lines are skipped."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            line = line.removeprefix(_BOM) if number == 1 else line
            if not line.strip(_SPACE):
                continue
            location = SourceLocation(source, number)
            try:
                record = json.loads(line.strip(_SPACE).decode("utf-8"))
                if not isinstance(record, dict):
                    raise InvalidRequest(f"it is a JSON {type(record).__name__}, not an object")
                yield SourceRow(location, columns.item(record))
            except UnicodeDecodeError as error:
                bad_rows.add(location, f"not UTF-8: byte {error.start + 1} of the line")
            except json.JSONDecodeError as error:
                bad_rows.add(location, f"not JSON: {error.msg} at column {error.colno}")
            except RecursionError:
                bad_rows.add(location, "JSON nested too deeply")
            except InvalidRequest as error:
                bad_rows.add(location, error.message)

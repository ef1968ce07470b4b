"""Reads JSON lines: one object per line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from index_builder.documents.bad_rows import BadRows
from index_builder.documents.records import SourceLocation, SourceRow
from index_builder.readers.columns import DocumentColumns
from nearline.errors import InvalidRequest

_SPACE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
MAX_LINE_BYTES = 16 << 20
_SKIPPED_BYTES = 1 << 20
MAX_DEPTH = 100


def read_json_lines(
    path: Path, source: str, columns: DocumentColumns, bad_rows: BadRows
) -> Iterator[SourceRow]:
    """Yields the rows of a file; empty lines are skipped."""
    with path.open("rb") as stream:
        for number, line in enumerate(_lines(stream), start=1):
            location = SourceLocation(source, number)
            if line is None:
                bad_rows.add(
                    location, f"more than the {MAX_LINE_BYTES} bytes allowed in a line; split it"
                )
                continue
            line = line.removeprefix(_BOM) if number == 1 else line
            if not line.strip(_SPACE):
                continue
            try:
                record = json.loads(line.strip(_SPACE).decode("utf-8"))
                if line.count(b"[") + line.count(b"{") > MAX_DEPTH and _depth(record) > MAX_DEPTH:
                    raise RecursionError
                if not isinstance(record, dict):
                    raise InvalidRequest(f"it is a JSON {type(record).__name__}, not an object")
                yield SourceRow(location, columns.item(record))
            except UnicodeDecodeError as error:
                bad_rows.add(location, f"not UTF-8: byte {error.start + 1} of the line")
            except json.JSONDecodeError as error:
                # Python names some problems as "… starting at".
                problem = error.msg.removesuffix(" at")
                bad_rows.add(location, f"not JSON: {problem} at column {error.colno}")
            except ValueError as error:
                # For example a number of more digits than Python converts.
                bad_rows.add(location, f"not JSON that can be read: {error}")
            except RecursionError:
                bad_rows.add(location, f"JSON nested too deeply; {MAX_DEPTH} levels are allowed")
            except InvalidRequest as error:
                bad_rows.add(location, error.message)


def _lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """Yields every line; None for one that is too long, of which only a part is ever in memory."""
    while line := stream.readline(MAX_LINE_BYTES + 1):
        if len(line) <= MAX_LINE_BYTES:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(_SKIPPED_BYTES)
        yield None


def _depth(value: object) -> int:
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
    return depth

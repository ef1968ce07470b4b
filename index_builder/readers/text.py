"""Reads plain text and Markdown: one document per file, with its path as the id."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from index_builder.documents.bad_rows import BadRows
from index_builder.documents.records import SourceLocation, SourceRow
from nearline.contract import Item

_MARKDOWN = {".md", ".markdown"}
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.+?)[ \t]*#*[ \t]*$|^(\S.*)\n=+[ \t]*$", re.MULTILINE)
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def read_prose(path: Path, source: str, document_id: str, bad_rows: BadRows) -> Iterator[SourceRow]:
    """Yields the one document of a file.

    The title is the first heading of a Markdown file, otherwise the file's name without its suffix.
    The text is the whole file.
    """
    data = path.read_bytes()
    location = SourceLocation(source, 1)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        bad_rows.add(SourceLocation(source, line), f"not UTF-8: byte {error.start + 1} of the file")
        return
    title = _first_heading(text) if path.suffix.lower() in _MARKDOWN else ""
    yield SourceRow(
        location,
        Item(id=document_id, title=title or path.stem, text=text, attributes={"path": document_id}),
    )


def _first_heading(text: str) -> str:
    # A line of a code block may also begin with "#".
    outside = _FENCE.sub("", text)
    match = _HEADING.search(outside)
    return (match.group(1) or match.group(2)).strip() if match else ""

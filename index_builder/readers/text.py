"""Reads plain text and Markdown: one document per file, with its path as the id."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from index_builder.documents.bad_rows import BadRows
from index_builder.documents.records import SourceLocation, SourceRow
from nearline.contract import Item

MAX_BYTES = 64 << 20
_MARKDOWN = {".md", ".markdown"}
# Headings are found without a regular expression: one for them took cubic time on long lines.
_HEADING_SIGNS = re.compile(r" {0,3}#{1,6}[ \t]")
_SPACE = " \t\r"
# Linear: a marker that nothing closes is sought to the end of the text once for each kind.
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def read_prose(
    path: Path, source: str, document_id: str, title: str, bad_rows: BadRows
) -> Iterator[SourceRow]:
    """Yields the one document of a file.

    Its title is the first heading of a Markdown file, otherwise the given one. The text is the
    whole file.
    """
    location = SourceLocation(source, 1)
    size = path.stat().st_size
    if size > MAX_BYTES:
        bad_rows.add(location, f"the text has {size} bytes; {MAX_BYTES} are allowed: split it")
        return
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        bad_rows.add(SourceLocation(source, line), f"not UTF-8: byte {error.start + 1} of the file")
        return
    if "\0" in text:
        # English in UTF-16 without a mark is valid UTF-8, with a NUL after each letter.
        line = text.count("\n", 0, text.index("\0")) + 1
        bad_rows.add(
            SourceLocation(source, line),
            "it has a NUL character, so it is no text; convert it from UTF-16 to UTF-8, or omit it",
        )
        return
    if not text.strip():
        bad_rows.add(
            SourceLocation(source, 0),
            "the file has no text, only white space; save it again, or leave it out",
        )
        return
    if path.suffix.lower() in _MARKDOWN:
        title = _first_heading(text) or title
    yield SourceRow(
        location,
        Item(id=document_id, title=title, text=text, attributes={"path": document_id}),
    )


def _first_heading(text: str) -> str:
    """Returns the first heading that is not empty; takes time in proportion to the text."""
    previous = ""
    # A line of a code block may also begin with "#".
    for line in _FENCE.sub("", text).split("\n"):
        signs = _HEADING_SIGNS.match(line)
        if signs is not None:
            heading = line[signs.end() :].rstrip(_SPACE).rstrip("#").strip()
            if heading:
                return heading
        elif line.startswith("=") and not line.rstrip(_SPACE).strip("="):
            # A line underlined with equals signs.
            if previous and not previous[0].isspace():
                return previous.strip()
        previous = line
    return ""

"""Reads text: one document per file, with its path as the id.

Markdown, AsciiDoc, reStructuredText and manual pages are converted to HTML, and so is plain text by
the structure that its lines show; then the reader of HTML makes structured text of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from index_builder.documents.bad_rows import BadRows
from index_builder.documents.records import SourceLocation, SourceRow
from index_builder.readers.html import parse_markup
from index_builder.readers.protocol import ParsedDocument, UnreadableFile
from nearline.contract import Item

MAX_BYTES = 64 << 20
_LONGEST_LINE = 200_000
MARKDOWN = frozenset({".md", ".markdown"})
ASCIIDOC = frozenset({".adoc", ".asciidoc"})
RESTRUCTURED_TEXT = frozenset({".rst"})
MANUAL_PAGES = frozenset(f".{section}" for section in range(1, 9))

_BEGINNING = 1 << 14
_MANUAL_PAGE = re.compile(r"^[.'][ \t]*(?:TH|Dt)[ \t]", re.MULTILINE)


def read_prose(
    path: Path, source: str, document_id: str, title: str, bad_rows: BadRows
) -> Iterator[SourceRow]:
    """Yields the one document of a file.

    Its title is its first heading if its format has headings, otherwise the given one. A file whose
    name ends as that of a manual page, but which is something else, has no document.
    """
    location = SourceLocation(source, 1)
    size = path.stat().st_size
    if size > MAX_BYTES:
        bad_rows.add(location, f"the text has {size} bytes; {MAX_BYTES} are allowed: split it")
        return
    data = path.read_bytes()
    suffix = path.suffix.lower()
    if suffix in MANUAL_PAGES and not _MANUAL_PAGE.search(data[:_BEGINNING].decode("latin-1")):
        return
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
    try:
        document = parse_text(text, suffix)
    except UnreadableFile as error:
        bad_rows.add(location, str(error))
        return
    if not document.text:
        bad_rows.add(
            SourceLocation(source, 0),
            "the file has no text, only white space or signs; save it again, or leave it out",
        )
        return
    item = Item(
        id=document_id,
        title=document.title or title,
        text=document.text,
        attributes={"path": document_id},
    )
    yield SourceRow(location, item)


def parse_text(text: str, suffix: str) -> ParsedDocument:
    """Returns the title and the structured text of a text in the format of a suffix.

    Raises: UnreadableFile: it cannot be read.
    """
    # Imported late: each format has a library or a converter of its own.
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    # The library takes a second for each megabyte of signs; no line of prose is that long.
    signs = max(map(len, text.split("\n"))) > _LONGEST_LINE
    if suffix in MARKDOWN and not signs:
        from index_builder.readers.markdown import markdown_to_html

        return parse_markup(markdown_to_html(text))
    if suffix in RESTRUCTURED_TEXT:
        from index_builder.readers.restructured_text import restructured_text_to_html

        return parse_markup(restructured_text_to_html(text))
    if suffix in MANUAL_PAGES:
        from index_builder.readers.man_page import man_page_to_html

        return parse_markup(man_page_to_html(text))
    from index_builder.readers.asciidoc import asciidoc_to_html, is_asciidoc

    if suffix in ASCIIDOC or is_asciidoc(text):
        return parse_markup(asciidoc_to_html(text))
    from index_builder.readers.plain_text import plain_text_to_html

    if "\n" not in text.strip():
        return ParsedDocument("", text.strip())
    # Most plain texts begin with something else than their title.
    return ParsedDocument("", parse_markup(plain_text_to_html(text)).text)

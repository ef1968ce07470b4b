"""Reads text.

Markdown, AsciiDoc, reStructuredText and manual pages are converted to HTML, and so is plain text by
the structure that its lines show; then the reader of HTML makes structured text of it.
"""

from __future__ import annotations

import re
from pathlib import Path

from index_builder.readers.html import parse_markup
from index_builder.readers.protocol import ParsedDocument, UnreadableFile, check_size

MAX_BYTES = 64 << 20
_LONGEST_LINE = 200_000
MARKDOWN = frozenset({".md", ".markdown"})
ASCIIDOC = frozenset({".adoc", ".asciidoc"})
RESTRUCTURED_TEXT = frozenset({".rst"})
MANUAL_PAGES = frozenset(f".{section}" for section in range(1, 9))

_BEGINNING = 1 << 14
_MANUAL_PAGE = re.compile(r"^[.'][ \t]*(?:TH|Dt)[ \t]", re.MULTILINE)


def parse_prose(path: Path) -> ParsedDocument | None:
    """Reads a text file; None if its name ends as that of a manual page, but it is something else.

    Its title is its first heading if its format has headings, otherwise empty.
    Raises: UnreadableFile: the file is too large, not UTF-8, or without text. OSError.
    """
    check_size(path, MAX_BYTES)
    data = path.read_bytes()
    suffix = path.suffix.lower()
    if suffix in MANUAL_PAGES and not _MANUAL_PAGE.search(data[:_BEGINNING].decode("latin-1")):
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UnreadableFile(f"not UTF-8: byte {error.start + 1} of the file", line) from error
    if "\0" in text:
        # English in UTF-16 without a mark is valid UTF-8, with a NUL after each letter.
        raise UnreadableFile(
            "it has a NUL character, so it is no text; convert it from UTF-16 to UTF-8, or omit it",
            text.count("\n", 0, text.index("\0")) + 1,
        )
    document = parse_text(text, suffix)
    if not document.text:
        raise UnreadableFile(
            "the file has no text, only white space or signs; save it again, or leave it out", 0
        )
    return document


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

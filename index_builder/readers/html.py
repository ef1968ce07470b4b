"""Reads HTML: the text of a page as its readers see it."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from selectolax.lexbor import LexborHTMLParser, LexborNode

from index_builder.readers.html_text import PageText
from index_builder.readers.protocol import ParsedDocument, UnreadableFile, check_size
from index_builder.readers.structured_text import PartKind, one_line, render

MAX_BYTES = 64 << 20
# HTML standard, 13.2.3.2: only a declaration within the first 1024 bytes counts.
_CHARSET = re.compile(rb"<meta[^>]{0,512}?charset\s*=\s*[\"']?\s*([\w:.-]{1,40})", re.IGNORECASE)
_MAIN = ("main", "[role=main]", "body")
# What separates the title of a page from the name of its site.
_SITE = re.compile(r"(?:[|—–·«»:]|-\s)\s*+\S")
_PAGE_ENCODINGS = re.compile(r"cp\d|iso8859|koi8|gb|big5|euc_|iso2022|shift_jis|mac_|johab")
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


def parse_page(path: Path) -> ParsedDocument:
    """Reads an HTML file.

    The title is <title> without the name of the site, otherwise the first <h1>, otherwise empty.
    The text is that of <main> if present, otherwise of <body>; see `structured_text`.
    Raises: UnreadableFile: the page is too large, not in its declared encoding, or without text.
        OSError.
    """
    check_size(path, MAX_BYTES)
    data = path.read_bytes()
    encoding = _encoding(data)
    try:
        markup = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UnreadableFile(
            f"not {encoding}: byte {error.start + 1} of the file; convert it to UTF-8, or declare "
            'its encoding with <meta charset="…">'
        ) from error
    document = parse_markup(markup)
    if not document.text:
        raise UnreadableFile(
            "no text outside scripts and navigation; save pages filled by scripts as the browser "
            "renders them"
        )
    return document


def parse_markup(markup: str) -> ParsedDocument:
    """Returns the title and the structured text of HTML; the text is empty if there is none.

    A page of nothing but contents, an index or navigation has its title as its text.
    """
    page = LexborHTMLParser(markup)
    first, named = page.css_first("h1"), page.css_first("title")
    heading = one_line(_read(first).parts()) if first is not None else ""
    title = _without_site(" ".join(named.text().split()) if named else "", heading) or heading
    text, left_out = "", False
    for selector in _MAIN:
        if not text and (root := page.css_first(selector)) is not None:
            content = _read(root)
            parts = content.parts()
            left_out |= content.left_out
            if parts and parts[0].kind is PartKind.HEADING and _repeats(parts[0].text, title):
                del parts[0]
                left_out = True
            text = render(parts)
    return ParsedDocument(title, text or (title if left_out else ""))


def _encoding(data: bytes) -> str:
    for mark, name in _BOMS:
        if data.startswith(mark):
            return name
    declared = _CHARSET.search(data[:1024])
    try:
        found = codecs.lookup(declared[1].decode("latin-1") if declared else "utf-8").name
    except LookupError:
        return "utf-8"
    # Browsers read pages declared as Latin-1 or ASCII as Windows-1252, and pages declared as UTF-16
    # in ASCII-compatible bytes as UTF-8. Python knows more encodings than pages use, including some
    # that decompress.
    if found in ("iso8859-1", "ascii"):
        return "cp1252"
    return found if _PAGE_ENCODINGS.match(found) else "utf-8"


def _without_site(title: str, heading: str) -> str:
    """Returns the heading of a page if its title is that and the name of a site."""
    site = title.removeprefix(heading)
    return heading if heading and site != title and _SITE.match(site.lstrip()) else title


def _repeats(heading: str, title: str) -> bool:
    """Returns whether one begins with all words of the other."""
    short, long = sorted((heading.casefold().split(), title.casefold().split()), key=len)
    return bool(short) and long[: len(short)] == short


def _read(root: LexborNode) -> PageText:
    """Walks a tree without recursion, so that no nesting is too deep."""
    content = PageText()
    node: LexborNode | None = root
    while node is not None:
        entered = False
        if node.is_text_node:
            content.write(node.text_content or "")
        elif node.is_element_node:
            entered = content.enter(node.tag or "", node.attributes)
        if entered and node.child is not None:
            node = node.child
            continue
        while node is not None:
            if entered:
                content.leave()
            if node.mem_id == root.mem_id:
                return content
            if node.next is not None:
                node = node.next
                break
            node, entered = node.parent, True
    return content

"""Reads HTML: the text of a page as its readers see it."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from selectolax.lexbor import LexborHTMLParser, LexborNode

from index_builder.readers.protocol import ParsedDocument, UnreadableFile

MAX_BYTES = 64 << 20
# Elements without text, and those repeated on every page of a site.
_SKIPPED_TAGS = frozenset(
    "script style noscript template svg math canvas iframe object audio video select button "
    "textarea nav footer aside head".split()
)
_SKIPPED_ROLES = frozenset({"navigation", "banner", "contentinfo", "search", "complementary"})
_BLOCKS = frozenset(
    "address article blockquote body center details dialog div dl fieldset figcaption figure form "
    "h1 h2 h3 h4 h5 h6 header hgroup hr main menu ol p pre section summary table ul".split()
)
_LINES = frozenset({"br", "caption", "dd", "dt", "li", "option", "tr"})
_CELLS = frozenset({"td", "th"})
_WORD_GAP, _LINE_GAP, _PARAGRAPH_GAP = " ", "\n", "\n\n"
_WHITESPACE = re.compile(r"[ \t\r\n\f\u00a0]+")
# HTML standard, 13.2.3.2: only a declaration within the first 1024 bytes counts.
_CHARSET = re.compile(rb"<meta[^>]{0,512}?charset\s*=\s*[\"']?\s*([\w:.-]{1,40})", re.IGNORECASE)
_PAGE_ENCODINGS = re.compile(r"cp\d|iso8859|koi8|gb|big5|euc_|iso2022|shift_jis|mac_|johab")
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


def parse_page(path: Path) -> ParsedDocument:
    """Reads an HTML file.

    The title is <title>, otherwise the first <h1>, otherwise empty. The text is that of <main> if
    present, otherwise of <body>, in page order, without scripts, navigation and hidden elements.
    Paragraphs are separated by an empty line.
    Raises: UnreadableFile: the page is too large, not in its declared encoding, or without text.
        OSError.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UnreadableFile(f"the page has {size} bytes; {MAX_BYTES} are allowed: split it")
    data = path.read_bytes()
    encoding = _encoding(data)
    try:
        page = LexborHTMLParser(data.decode(encoding))
    except UnicodeDecodeError as error:
        raise UnreadableFile(
            f"not {encoding}: byte {error.start + 1} of the file; convert it to UTF-8, or declare "
            'its encoding with <meta charset="…">'
        ) from error
    text = page_text(page)
    if not text:
        raise UnreadableFile(
            "no text outside scripts and navigation; save pages filled by scripts as the browser "
            "renders them"
        )
    return ParsedDocument(_heading(page, "title") or _heading(page, "h1"), text)


def page_text(page: LexborHTMLParser) -> str:
    """Returns the text of a page; paragraphs are separated by an empty line."""
    for root in (page.css_first("main"), page.body):
        if root is not None and (text := _text(root)):
            return text
    return ""


def _encoding(data: bytes) -> str:
    for mark, name in _BOMS:
        if data.startswith(mark):
            return name
    declared = _CHARSET.search(data[:1024])
    if declared:
        try:
            found = codecs.lookup(declared.group(1).decode("ascii")).name
        except (LookupError, UnicodeDecodeError):
            return "utf-8"
        # Browsers read pages declared as Latin-1 or ASCII as Windows-1252, and pages declared as
        # UTF-16 in ASCII-compatible bytes as UTF-8. Python knows more encodings than pages use,
        # including some that decompress.
        if found in ("iso8859-1", "ascii"):
            return "cp1252"
        return found if _PAGE_ENCODINGS.match(found) else "utf-8"
    return "utf-8"


def _heading(page: LexborHTMLParser, tag: str) -> str:
    node = page.css_first(tag)
    return _WHITESPACE.sub(" ", node.text()).strip() if node is not None else ""


def _text(root: LexborNode) -> str:
    """Walks a tree without recursion, so that no nesting is too deep."""
    writer = _Writer()
    node: LexborNode | None = root
    while node is not None:
        skipped = node.is_element_node and _is_skipped(node)
        if node.is_text_node:
            writer.write(node.text_content or "")
        elif not skipped:
            writer.enter(node.tag or "")
        if node.child is not None and not skipped:
            node = node.child
            continue
        while node is not None:
            if not node.is_text_node:
                writer.leave(node.tag or "")
            if node.mem_id == root.mem_id:
                return writer.text()
            if node.next is not None:
                node = node.next
                break
            node = node.parent
    return writer.text()


def _is_skipped(node: LexborNode) -> bool:
    if node.tag in _SKIPPED_TAGS:
        return True
    attributes = node.attributes
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or attributes.get("role") in _SKIPPED_ROLES
    )


class _Writer:
    """Joins pieces of text, with the widest gap that the tags between two pieces require."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._gap = ""
        self._preformatted = 0

    def enter(self, tag: str) -> None:
        """Begins an element."""
        self._separate(tag)
        self._preformatted += tag == "pre"

    def leave(self, tag: str) -> None:
        """Ends an element."""
        self._preformatted -= tag == "pre" and self._preformatted > 0
        self._separate(tag)

    def write(self, text: str) -> None:
        """Adds text."""
        if self._preformatted:
            if text.strip():
                self._add(text.rstrip())
            return
        words = _WHITESPACE.sub(" ", text)
        if words[:1] == " ":
            self._widen(_WORD_GAP)
        if words.strip():
            self._add(words.strip())
            if words[-1] == " ":
                self._widen(_WORD_GAP)

    def text(self) -> str:
        """Returns the text written."""
        return "".join(self._pieces).strip()

    def _add(self, text: str) -> None:
        if self._pieces:
            self._pieces.append(self._gap)
        self._pieces.append(text)
        self._gap = ""

    def _separate(self, tag: str) -> None:
        if tag in _BLOCKS:
            self._widen(_PARAGRAPH_GAP)
        elif tag in _LINES:
            self._widen(_LINE_GAP)
        elif tag in _CELLS:
            self._widen(_WORD_GAP)

    def _widen(self, gap: str) -> None:
        # Gaps are ordered by how much they separate, not as text.
        if _GAPS.index(gap) > _GAPS.index(self._gap):
            self._gap = gap


_GAPS = ("", _WORD_GAP, _LINE_GAP, _PARAGRAPH_GAP)

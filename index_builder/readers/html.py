"""HTML: the text of a file as a reader of the page sees it."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from selectolax.lexbor import LexborHTMLParser, LexborNode

from index_builder.readers.protocol import ParsedDocument, UnreadableFile

MAX_BYTES = 64 << 20
# What is no text, and what every page of a site repeats.
_LEFT_OUT = frozenset(
    "script style noscript template svg math canvas iframe object audio video select button "
    "textarea nav footer aside head".split()
)
_LEFT_OUT_ROLES = frozenset({"navigation", "banner", "contentinfo", "search", "complementary"})
_BLOCKS = frozenset(
    "address article blockquote body center details dialog div dl fieldset figcaption figure form "
    "h1 h2 h3 h4 h5 h6 header hgroup hr main menu ol p pre section summary table ul".split()
)
_LINES = frozenset({"br", "caption", "dd", "dt", "li", "option", "tr"})
_CELLS = frozenset({"td", "th"})
_WORD_GAP, _LINE_GAP, _PARAGRAPH_GAP = " ", "\n", "\n\n"
_WHITESPACE = re.compile(r"[ \t\r\n\f\u00a0]+")
# HTML standard, 13.2.3.2: a declaration counts within the first 1024 bytes.
_CHARSET = re.compile(rb"<meta[^>]{0,512}?charset\s*=\s*[\"']?\s*([\w:.-]{1,40})", re.IGNORECASE)
_KNOWN = re.compile(r"cp\d|iso8859|koi8|gb|big5|euc_|iso2022|shift_jis|mac_|johab")
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


def parse_page(path: Path) -> ParsedDocument:
    """Reads an HTML file.

    The title is <title>, else the first <h1>, else empty. The text is that of <main> where there is
    one, else of <body>, in the order of the page and without scripts, navigation and what is
    hidden; paragraphs are parted by an empty line.
    Raises: Unreadable: too large, of another encoding than it says, or without text. OSError.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UnreadableFile(f"the page has {size} bytes, {MAX_BYTES} are read; cut it in parts")
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
            "no text outside scripts and navigation; a page that a script fills has to be saved as "
            "the browser shows it"
        )
    return ParsedDocument(_heading(page, "title") or _heading(page, "h1"), text)


def page_text(page: LexborHTMLParser) -> str:
    """Returns the text of a page, paragraphs parted by an empty line."""
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
        # Browsers read a page that calls itself Latin-1 or ASCII as Windows-1252, and one that says
        # UTF-16 in bytes that can be read as ASCII as UTF-8. Python knows more encodings than pages
        # have, some of which unpack.
        if found in ("iso8859-1", "ascii"):
            return "cp1252"
        return found if _KNOWN.match(found) else "utf-8"
    return "utf-8"


def _heading(page: LexborHTMLParser, tag: str) -> str:
    node = page.css_first(tag)
    return _WHITESPACE.sub(" ", node.text()).strip() if node is not None else ""


def _text(root: LexborNode) -> str:
    """Walks a tree without recursion, so that no nesting is too deep."""
    writer = _Writer()
    node: LexborNode | None = root
    while node is not None:
        left_out = node.is_element_node and _is_left_out(node)
        if node.is_text_node:
            writer.write(node.text_content or "")
        elif not left_out:
            writer.enter(node.tag or "")
        if node.child is not None and not left_out:
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


def _is_left_out(node: LexborNode) -> bool:
    if node.tag in _LEFT_OUT:
        return True
    attributes = node.attributes
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or attributes.get("role") in _LEFT_OUT_ROLES
    )


class _Writer:
    """Joins pieces of text, with the widest gap that the tags between two of them ask for."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._gap = ""
        self._preformatted = 0

    def enter(self, tag: str) -> None:
        """Opens an element."""
        self._part(tag)
        self._preformatted += tag == "pre"

    def leave(self, tag: str) -> None:
        """Closes an element."""
        self._preformatted -= tag == "pre" and self._preformatted > 0
        self._part(tag)

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
        """Returns what was written."""
        return "".join(self._pieces).strip()

    def _add(self, text: str) -> None:
        if self._pieces:
            self._pieces.append(self._gap)
        self._pieces.append(text)
        self._gap = ""

    def _part(self, tag: str) -> None:
        if tag in _BLOCKS:
            self._widen(_PARAGRAPH_GAP)
        elif tag in _LINES:
            self._widen(_LINE_GAP)
        elif tag in _CELLS:
            self._widen(_WORD_GAP)

    def _widen(self, gap: str) -> None:
        # "" < " " < "\n" < "\n\n" by what they part, which is not their order as text.
        if _GAPS.index(gap) > _GAPS.index(self._gap):
            self._gap = gap


_GAPS = ("", _WORD_GAP, _LINE_GAP, _PARAGRAPH_GAP)

"""Reads PDF: the structured text of a file, from the lines that PDFium finds on its pages."""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple

import pypdfium2
from pypdfium2 import raw

from index_builder.documents.bad_rows import reason_of
from index_builder.readers.protocol import ParsedDocument, UnreadableFile, check_size
from index_builder.readers.structured_text import Part, PartKind, code, item, items, render

MAX_BYTES = 512 << 20
MAX_PAGES = 20_000
MAX_CHARACTERS = 64 << 20
_MAX_REASON = 120  # Characters of the library's error.
_MAX_BOOKMARKS = 20_000
_MAX_HEADING = 150
# At the top and at the bottom of a page; a header or footer is on this many pages, or this share.
_EDGE_LINES, _MANY_PAGES, _MANY_SHARE = 2, 5, 0.3
# Lines of a page with a page number at their end that make it a table of contents.
_MIN_ENTRIES = 4
# Distances: of lines in usual distances, of edges and heights in sizes of the font.
_MAX_GAP, _INDENT, _CELL_GAP = 1.3, 0.8, 2.0
_HEADING_SIZE = 1.12
_HYPHENS = (0x02, 0xFFFE)  # How the library marks a hyphen at the end of a line, which it joins.
_GLYPHS = {
    **{0xFB00 + n: text for n, text in enumerate(("ff", "fi", "fl", "ffi", "ffl", "st", "st"))},
    **dict.fromkeys((*_HYPHENS, 0xAD), "-"),
    # Bullets of symbol fonts.
    **dict.fromkeys((0xF0B7, 0xF0A7, 0xF076, 0xF0D8, 0xF06E), "•"),
}
_MONO = re.compile(r"tt\d|mono|courier|consol|typewriter|menlo", re.IGNORECASE)
_BOLD = re.compile(r"bold|black|heavy|demi|medi\b|cmbx|sfbx|ecbx", re.IGNORECASE)
_BOLD_WEIGHT = 550
_GENERATED_TITLE = re.compile(
    r"untitled|microsoft \w+ -.*|.*\.(docx?|odt|tex|dvi|indd|qxd|rtf|pdf|html?)", re.IGNORECASE
)
_MARKER = re.compile(r"(?:[•◦▪‣●○■□*·–—-]|\(?(?:(\d{1,3})|[A-Za-z]|[ivx]{1,4})[.)])\s+(?=\S)")
_SIGNS = re.compile(r"^(?:#{1,6} |`{3,}|~{3,})", re.MULTILINE)
_NUMBERS = re.compile(r"\d{1,5}|\b[ivxl]{1,7}\b")
_NUMBERED = re.compile(r"\A(?:\d{1,3}|[A-Z]|[IVXL]{1,5})(?:\.\d+)*[.:)]?\s+")
_LEADER = re.compile(r"(?<![.·…_\s])\s{0,9}(?:[.·…_]\s?){4,}+\s*+(?=\S)")
_CONTENTS = re.compile(
    r"(?:short |table of |brief )?contents|inhalt(?:sverzeichnis)?", re.IGNORECASE
)
_HYPHENATED = re.compile(r"(?<!\w)\w++(?:-\w++)++")
_ALNUM = re.compile(r"[\W_]+")
_END = (".", "!", "?", ":", ".”", ".)", '."')


class _Line(NamedTuple):
    text: str
    left: float
    right: float
    base: float  # Height on the page.
    size: float
    bold: bool
    mono: bool
    is_row: bool  # Whether wide gaps divide it into the cells of a table.
    column: int  # Lines of a column have one number, from the top of the page on.
    page: int

    @property
    def style(self) -> tuple[float, bool]:
        return round(self.size * 2) / 2, self.bold


def parse_pdf(path: Path) -> ParsedDocument:
    """Reads a PDF file.

    The title is that of the file's properties, otherwise the largest heading of the first page,
    otherwise empty. The text is structured text, without headers, footers and contents; the rows of
    a table are lines.
    Raises: UnreadableFile: the file is encrypted, broken, too large, or contains only images.
        OSError.
    """
    check_size(path, MAX_BYTES)
    with path.open("rb"):
        pass  # Raises OSError, which the library does not tell from a broken file.
    try:
        with closing(pypdfium2.PdfDocument(path)) as document:
            return _parsed(document)
    except (UnreadableFile, MemoryError):
        raise
    except Exception as error:
        # The library may return places and sizes of letters that are no numbers.
        error_code = getattr(error, "err_code", None)
        if error_code in (raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY):
            raise UnreadableFile("encrypted with a password; remove it first") from error
        reason = reason_of(error, _MAX_REASON)
        raise UnreadableFile(f"broken PDF ({reason}); export it again") from error


def _parsed(document: pypdfium2.PdfDocument) -> ParsedDocument:
    count = len(document)
    if count > MAX_PAGES:
        raise UnreadableFile(f"the file has {count} pages; {MAX_PAGES} are allowed: split it")
    lines = list(_lines(document))
    if not lines:
        raise UnreadableFile(
            f"no text in {count} pages; if they are scanned images, run text recognition (OCR) "
            "first"
        )
    title = " ".join(document.get_metadata_value("Title").split())
    if _GENERATED_TITLE.fullmatch(title):
        title = ""
    body = _without_contents(_without_furniture(lines))
    levels = _heading_levels(body, _bookmarks(document))
    first = {at: body[at].size for at in levels if body[at].page == body[0].page}
    largest = max(first, key=first.__getitem__, default=None)
    if largest is not None and (not title or _keys(title) & _keys(body[largest].text)):
        title = title or body[largest].text
        del body[largest]
        levels = {at - (at > largest): level for at, level in levels.items() if at != largest}
    text = render(_parts(body, levels))
    title = title or ("" if text else lines[0].text)
    return ParsedDocument(title, text or title, count)


def _lines(document: pypdfium2.PdfDocument) -> Iterator[_Line]:
    total = 0
    for number in range(len(document)):
        page = document[number]
        text = page.get_textpage()
        total += text.count_chars()
        if total > MAX_CHARACTERS:
            raise UnreadableFile(f"more than {MAX_CHARACTERS} characters of text; split it")
        yield from _lines_of_page(text, number)
        text.close()
        page.close()


def _lines_of_page(text: pypdfium2.PdfTextPage, page: int) -> Iterator[_Line]:
    """Yields the lines of a page in the order of the file, which is that of its columns."""
    handle, box, matrix = text.raw, raw.FS_RECTF(), raw.FS_MATRIX()
    fonts: dict[int | None, tuple[bool, bool]] = {}
    letters: list[str] = []
    styles = Counter[tuple[float, float, bool, bool]]()  # Base, size, bold, mono.
    left = right = above = 0.0
    is_row, column = False, 0

    def line() -> Iterator[_Line]:
        nonlocal above, column, is_row
        shown = "".join(letters).strip()
        if shown and styles:
            (base, size, bold, mono), _ = styles.most_common(1)[0]
            column += base > above
            above = base
            yield _Line(shown, left, right, base, size, bold, mono, is_row, column, page)
        letters.clear()
        styles.clear()
        is_row = False

    for n in range(raw.FPDFText_CountChars(handle)):
        value = raw.FPDFText_GetUnicode(handle, n)
        if value in (0x0A, 0x0D):
            yield from line()
            continue
        letter = _GLYPHS.get(value) or (chr(value) if not 0xE000 <= value <= 0xF8FF else "")
        if letter.isspace() or not letter.isprintable():
            letters.append(" ")
            continue
        drawing = raw.FPDFText_GetTextObject(handle, n)
        raw.FPDFText_GetLooseCharBox(handle, n, box)
        raw.FPDFText_GetMatrix(handle, n, matrix)
        size = raw.FPDFText_GetFontSize(handle, n) * (matrix.c**2 + matrix.d**2) ** 0.5 or 1.0
        if styles and box.left < left - size:
            yield from line()  # Another column at the same height.
        is_row |= bool(styles) and box.left > right + _CELL_GAP * size
        left = min(left, box.left) if styles else box.left
        right = max(right, box.right) if styles else box.right
        font = raw.FPDFTextObj_GetFont(drawing) if drawing else None
        styles[matrix.f, size, *_font(font, fonts)] += 1
        letters.append(letter)
        if value in _HYPHENS:
            yield from line()
    yield from line()


def _font(handle: raw.FPDF_FONT, known: dict[int | None, tuple[bool, bool]]) -> tuple[bool, bool]:
    """Returns whether a font is bold, and whether all its letters have the same width."""
    address = ctypes.cast(handle, ctypes.c_void_p).value
    if address not in known:
        buffer = ctypes.create_string_buffer(128)
        raw.FPDFFont_GetBaseFontName(handle, buffer, len(buffer))
        name = buffer.value.decode("latin-1")
        bold = _BOLD.search(name) is not None or raw.FPDFFont_GetWeight(handle) >= _BOLD_WEIGHT
        known[address] = bold, _MONO.search(name) is not None
    return known[address]


def _bookmarks(document: pypdfium2.PdfDocument) -> Iterator[tuple[int, str, int]]:
    """Yields page, title and level of the entries of the outline; levels begin at 1."""
    for count, entry in enumerate(document.get_toc(), start=1):
        target = entry.get_dest()
        page = target.get_index() if target is not None else None
        if page is not None:
            yield page, entry.get_title(), min(6, entry.level + 1)
        if count == _MAX_BOOKMARKS:
            return


def _without_furniture(lines: Sequence[_Line]) -> list[list[_Line]]:
    """Returns the lines of each page without headers, footers and page numbers.

    They are at the edges of pages, and equal but for numbers those at the same height of others.
    """
    pages = [list(page) for _, page in groupby(lines, lambda line: line.page)]

    def form(line: _Line) -> tuple[str, int]:
        return _NUMBERS.sub("#", line.text), round(line.base / 4)

    edges = []
    for page in pages:
        ordered = sorted(page, key=lambda line: -line.base)
        most = _EDGE_LINES if len(ordered) > 2 * _EDGE_LINES else 1
        edges += [*ordered[:most], *ordered[most:][-most:]]
    forms = Counter(map(form, edges))
    many = min(_MANY_PAGES, max(2, len(pages) * _MANY_SHARE))
    furniture = {line for line in edges if forms[form(line)] >= many}
    return [[line for line in page if line not in furniture] for page in pages]


def _without_contents(pages: Sequence[Sequence[_Line]]) -> list[_Line]:
    """Returns the lines of all pages without tables of contents, whose page numbers grow."""
    kept: list[_Line] = []
    follows = False
    for page in pages:
        ends = {line: line.text.rsplit(None, 1)[-1] for line in page if _LEADER.search(line.text)}
        entries = {line: int(end) for line, end in ends.items() if end.isdecimal()}
        numbers = list(entries.values())
        grows = numbers == sorted(numbers)
        headed = any(_CONTENTS.fullmatch(line.text) for line in page[:_MIN_ENTRIES])
        follows = grows and bool(numbers) and (headed or follows or len(numbers) >= _MIN_ENTRIES)
        for line in page:
            if not (follows and (line in entries or _CONTENTS.fullmatch(line.text))):
                kept.append(line)
    return kept


def _heading_levels(
    lines: Sequence[_Line], bookmarks: Iterator[tuple[int, str, int]]
) -> dict[int, int]:
    """Returns the levels of headings, by number of line: by the outline, by size and weight."""
    named: dict[int, dict[str, int]] = {}
    for page, title, level in bookmarks:
        named.setdefault(page, {}).update(dict.fromkeys(_keys(title), level))
    sizes = Counter[float]()
    for line in lines:
        sizes[line.style[0]] += len(line.text)
    usual = max(sizes, key=sizes.__getitem__, default=1.0)
    found: dict[int, int] = {}
    styled: dict[int, tuple[float, bool]] = {}
    for at, line in enumerate(lines):
        of_page = named.get(line.page, {})
        known = next((of_page[key] for key in _keys(line.text) if key in of_page), 0)
        large = line.size >= _HEADING_SIZE * usual
        bold = line.bold and line.size >= 0.97 * usual and not line.text.endswith((*",;.:",))
        if known:
            found[at] = known
        elif line.mono or not 1 < len(line.text) <= _MAX_HEADING:
            continue
        elif (large and any(map(str.isalpha, line.text))) or (
            bold and not _MARKER.match(line.text)
        ):
            styled[at] = line.style
    ranks = {style: min(6, n) for n, style in enumerate(sorted({*styled.values()})[::-1], start=1)}
    return found | {at: ranks[style] for at, style in styled.items()}


def _keys(text: str) -> set[str]:
    """Returns the letters of a heading, with and without its number."""
    both = (_ALNUM.sub("", one).lower() for one in (text, _NUMBERED.sub("", text, count=1)))
    return {one for one in both if one}


def _parts(lines: Sequence[_Line], levels: dict[int, int]) -> list[Part]:
    compounds = frozenset(word.lower() for line in lines for word in _HYPHENATED.findall(line.text))
    gaps = Counter(
        round((one.base - two.base) / two.size, 1)
        for one, two in pairwise(lines)
        if one.page == two.page and 0 < one.base - two.base < 2.5 * two.size
    )
    leading = max(gaps, key=gaps.__getitem__, default=1.2)
    rights: dict[tuple[int, int], float] = {}
    for line in lines:
        of = line.page, line.column
        rights[of] = max(rights.get(of, 0.0), line.right)
    parts: list[Part | None] = []
    # Texts of the items of an open list, with their indentation in sizes of the font.
    listed: list[tuple[float, str]] = []
    block: list[str] = []
    verbatim: list[str] = []  # Lines of code, indented from the left edge of the first.
    edge = 0.0

    def end() -> None:
        if verbatim:
            parts.append(code("\n".join(verbatim)))
            verbatim.clear()
        if listed:
            parts.append(_list(listed))
            listed.clear()
        elif block:
            parts.append(_paragraph("\n".join(block)))
        block.clear()

    for at, line in enumerate(lines):
        before = lines[at - 1] if at else None
        close = before is not None and _follows(before, line, leading)
        text = _LEADER.sub(": ", line.text, count=1)
        marker = _MARKER.match(text)
        if at in levels:
            end()
            if before is not None and close and levels.get(at - 1) == levels[at]:
                last = parts.pop()
                text = f"{last.text if last else ''} {text}"
            parts.append(Part(PartKind.HEADING, text, levels[at]))
        elif line.mono:
            if before is None or not before.mono or at - 1 in levels:
                end()
                edge = line.left
            elif before.base - line.base > 1.8 * line.size:
                verbatim.append("")
            width = (line.right - line.left) / len(line.text) or 1.0
            verbatim.append(" " * min(80, max(0, round((line.left - edge) / width))) + line.text)
        elif marker or text != line.text:
            if not listed or verbatim:
                end()
            listed.append((line.left / line.size, text if marker else f"- {text}"))
        elif listed and close and line.left / line.size > listed[-1][0] - _INDENT:
            left, last_text = listed[-1]
            listed[-1] = (left, _joined(last_text, text, compounds))
        elif block and close and before is not None:
            if _is_short(before, line, rights[before.page, before.column]):
                block.append(text)
            else:
                block[-1] = _joined(block[-1], text, compounds)
        else:
            end()
            block.append(text)
    end()
    return [part for part in parts if part is not None]


def _follows(before: _Line, line: _Line, leading: float) -> bool:
    """Returns whether a line may continue the paragraph of the line before it."""
    if abs(before.size - line.size) > 0.16 * before.size or before.mono != line.mono:
        return False
    gap = before.base - line.base
    if before.page == line.page and gap > 0:
        return gap <= _MAX_GAP * leading * line.size
    # On the next page, or in the next column.
    return not before.text.endswith(_END) and line.text[:1].islower()


def _is_short(before: _Line, line: _Line, right: float) -> bool:
    """Returns whether the first word of a line would have fitted on the line before it.

    right: Right edge of the column. Rows of tables are short, too.
    """
    width = (line.right - line.left) / max(1, len(line.text))
    word = len(line.text.split(" ", 1)[0]) * width
    return before.is_row or line.is_row or before.right + word + line.size < right


def _joined(text: str, more: str, compounds: frozenset[str]) -> str:
    """Joins two lines of a paragraph; a word that was hyphenated at the end becomes whole."""
    if not (text.endswith("-") and text[-2:-1].isalnum()):
        return f"{text} {more}"
    word = f"{text.rsplit(None, 1)[-1]}{more.split(None, 1)[0]}".lower().strip(".,;:!?()“”\"'")
    return text + more if word in compounds or not more[:1].islower() else text[:-1] + more


def _list(listed: Sequence[tuple[float, str]]) -> Part | None:
    """Returns a list; items further to the right belong to the one before."""
    written: list[str] = []
    at = 0
    while at < len(listed):
        left, text = listed[at]
        inner = at + 1
        while inner < len(listed) and listed[inner][0] > left + _INDENT:
            inner += 1
        found = _MARKER.match(text)
        marker = f"{found[1]}. " if found and found[1] else "- "
        nested = _list(listed[at + 1 : inner]) if inner > at + 1 else None
        children = [_paragraph(text[found.end() if found else 0 :]), nested]
        written.append(item(marker, [one for one in children if one is not None]))
        at = inner
    return items(written)


def _paragraph(text: str) -> Part:
    return Part(PartKind.PARAGRAPH, _SIGNS.sub("", text))

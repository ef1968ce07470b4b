"""Reads PDF: the structured text of a file, from where its letters stand on the page."""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pypdfium2
from pypdfium2 import raw

from index_builder.documents.bad_rows import reason_of
from index_builder.readers.pages.headings import Bookmark
from index_builder.readers.pages.layout import Font, Line, Rule, Word, read_lines
from index_builder.readers.pages.text import write_text
from index_builder.readers.protocol import ParsedDocument, UnreadableFile, check_size

MAX_BYTES = 512 << 20
MAX_PAGES = 20_000
MAX_CHARACTERS = 64 << 20
_MAX_REASON = 120  # Characters of the library's error.
_MAX_DRAWINGS = 20_000  # Of a page; maps have more, and no tables.
_MAX_BOOKMARKS = 20_000
_GLYPHS = {
    **{0xFB00 + n: text for n, text in enumerate(("ff", "fi", "fl", "ffi", "ffl", "st", "st"))},
    # The library marks a hyphen at the end of a line by either of the first two.
    **dict.fromkeys((0x02, 0xFFFE, 0xAD), "-"),
    # Bullets of symbol fonts.
    **dict.fromkeys((0xF0B7, 0xF0A7, 0xF076, 0xF0D8, 0xF06E), "•"),
}
_SPACES = frozenset((0x20, 0x09, 0xA0, *range(0x2000, 0x200C), 0x3000))
_MONO = re.compile(r"tt\d|mono|courier|consol|typewriter|menlo", re.IGNORECASE)
_BOLD = re.compile(r"bold|black|heavy|demi|medi\b|cmbx|sfbx|ecbx", re.IGNORECASE)
_BOLD_WEIGHT = 550
_FIXED_PITCH = 1  # The first flag of a font descriptor.
_GENERATED_TITLE = re.compile(
    r"untitled|microsoft \w+ -.*|.*\.(docx?|odt|tex|dvi|indd|qxd|rtf|pdf|html?)", re.IGNORECASE
)


def parse_pdf(path: Path) -> ParsedDocument:
    """Reads a PDF file.

    The title is that of the file's properties, otherwise the largest heading of the first page,
    otherwise empty. The text is structured text, without headers, footers, contents and indexes.
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
        code = getattr(error, "err_code", None)
        if code in (raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY):
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
    return ParsedDocument(*write_text(lines, list(_bookmarks(document)), title), count)


def _bookmarks(document: pypdfium2.PdfDocument) -> Iterator[Bookmark]:
    for count, entry in enumerate(document.get_toc(), start=1):
        target = entry.get_dest()
        page = target.get_index() if target is not None else None
        if page is not None:
            yield Bookmark(entry.get_title(), entry.level, page)
        if count == _MAX_BOOKMARKS:
            return


def _lines(document: pypdfium2.PdfDocument) -> Iterator[Line]:
    total = 0
    for number in range(len(document)):
        page = document[number]
        text = page.get_textpage()
        total += text.count_chars()
        if total > MAX_CHARACTERS:
            raise UnreadableFile(f"more than {MAX_CHARACTERS} characters of text; split it")
        turns = Counter[int]()
        words = list(_words(text, turns))
        # The direction of most text is upright; the rest is stamps and labels at the side.
        upright = max(turns, key=lambda turn: turns[turn], default=0)
        yield from read_lines(
            [word for turn, word in words if turn == upright],
            list(_rules(page)) if not upright else [],
            number,
        )
        text.close()
        page.close()


def _words(text: pypdfium2.PdfTextPage, turns: Counter[int]) -> Iterator[tuple[int, Word]]:
    """Yields words, or parts of words that are drawn separately, with their quarter turns."""
    handle, box, matrix = text.raw, raw.FS_RECTF(), raw.FS_MATRIX()
    fonts: dict[int | None, Font] = {}
    letters: list[str] = []
    drawn: int | None = None
    font, turn, spaced = Font("", False, False), 0, False
    start = end = base = size = 0.0
    for n in range(raw.FPDFText_CountChars(handle)):
        code = raw.FPDFText_GetUnicode(handle, n)
        if code in _SPACES or (code < 0x20 and code != 0x02):
            if letters:
                yield turn, Word("".join(letters), start, end, base, size, font, spaced)
                letters = []
            spaced = code in _SPACES
            continue
        drawing = raw.FPDFText_GetTextObject(handle, n)
        address = ctypes.cast(drawing, ctypes.c_void_p).value
        raw.FPDFText_GetLooseCharBox(handle, n, box)
        if address != drawn:
            if letters:
                yield turn, Word("".join(letters), start, end, base, size, font, spaced)
                letters, spaced = [], False
            drawn = address
            raw.FPDFText_GetMatrix(handle, n, matrix)
            a, b = matrix.a, matrix.b
            turn = (0 if a > 0 else 2) if abs(a) >= abs(b) else (1 if b > 0 else 3)
            base = (matrix.f, -matrix.e, -matrix.f, matrix.e)[turn]
            scale = (matrix.c**2 + matrix.d**2) ** 0.5
            size = raw.FPDFText_GetFontSize(handle, n) * scale or 1.0
            font = _font(raw.FPDFTextObj_GetFont(drawing), fonts)
        if turn == 0:
            left, right = box.left, box.right
        elif turn == 2:
            left, right = -box.right, -box.left
        else:
            left, right = (box.bottom, box.top) if turn == 1 else (-box.top, -box.bottom)
        letter = _GLYPHS.get(code) or (chr(code) if not 0xE000 <= code <= 0xF8FF else "")
        turns[turn] += 1
        if letters and not -0.5 * size < left - end < 0.15 * size:
            yield turn, Word("".join(letters), start, end, base, size, font, spaced)
            letters, spaced = [], False
        if not letters:
            start = left
        letters.append(letter)
        end = right
    if letters:
        yield turn, Word("".join(letters), start, end, base, size, font, spaced)


def _font(handle: raw.FPDF_FONT, known: dict[int | None, Font]) -> Font:
    address = ctypes.cast(handle, ctypes.c_void_p).value
    if address not in known:
        buffer = ctypes.create_string_buffer(128)
        raw.FPDFFont_GetBaseFontName(handle, buffer, len(buffer))
        name = buffer.value.decode("latin-1")
        mono = _MONO.search(name) is not None or (
            max(0, raw.FPDFFont_GetFlags(handle)) & _FIXED_PITCH > 0
        )
        bold = _BOLD.search(name) is not None or raw.FPDFFont_GetWeight(handle) >= _BOLD_WEIGHT
        known[address] = Font(name, bold, mono)
    return known[address]


def _rules(page: pypdfium2.PdfPage) -> Iterator[Rule]:
    """Yields the horizontal lines of a page."""
    sides = [ctypes.c_float() for _ in range(4)]
    for n in range(min(_MAX_DRAWINGS, raw.FPDFPage_CountObjects(page))):
        drawing = raw.FPDFPage_GetObject(page, n)
        if raw.FPDFPageObj_GetType(drawing) != raw.FPDF_PAGEOBJ_PATH:
            continue
        if raw.FPDFPageObj_GetBounds(drawing, *sides):
            left, bottom, right, top = (side.value for side in sides)
            if right - left > 20 and top - bottom < 3:
                yield Rule(left, right, (top + bottom) / 2)

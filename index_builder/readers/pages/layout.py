"""The layout of a page: words to lines, in the order in which columns are read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from statistics import median
from typing import NamedTuple, TypeVar

# Distances in sizes of the font.
_WORD_GAP = 0.17
_CELL_GAP = 0.9
_TERM_GAP = 0.45  # Between a name in a font of its own and what it means.
_ROW_HEIGHT = 0.5
_MIN_COLUMN_LINES = 4
_MIN_COLUMN_CHARACTERS = 15
_MAX_COLUMN_DEPTH = 3
_MOST = 0.9  # Of the letters of a line.
_MARKER = re.compile(
    r"[•◦▪‣●○■□*·–—-]|\(?(?:\d{1,3}|[A-Za-z]|[ivx]{1,4})[.)]|\d{1,3}(\.\d{1,3}){1,4}\.?"
)


class Font(NamedTuple):
    """A font. mono: Whether all letters have the same width."""

    name: str
    bold: bool
    mono: bool


class Word(NamedTuple):
    """Letters next to each other.

    base: Height of the line on which they stand. spaced: Whether a space comes before them.
    """

    text: str
    left: float
    right: float
    base: float
    size: float
    font: Font
    spaced: bool


class Rule(NamedTuple):
    """A horizontal line."""

    left: float
    right: float
    height: float


class Fragment(NamedTuple):
    """A part of a line, at a distance from its neighbours."""

    text: str
    left: float
    right: float


@dataclass(slots=True, eq=False)
class Column:
    """The column of lines. whole: Whether the page has no other at this height."""

    left: float
    right: float
    whole: bool


@dataclass(slots=True, eq=False)
class Line:
    """A line of a column. ruled: Whether a rule lies between it and the next line."""

    cells: list[Fragment]
    base: float
    size: float
    fonts: Counter[Font]
    page: int
    column: Column
    ruled: bool = False

    @property
    def left(self) -> float:
        return self.cells[0].left

    @property
    def right(self) -> float:
        return self.cells[-1].right

    @property
    def offset(self) -> float:
        """How far it is indented."""
        return self.left - self.column.left

    @property
    def text(self) -> str:
        return " ".join(cell.text for cell in self.cells)

    @property
    def mono(self) -> bool:
        return sum(self.fonts[font] for font in self.fonts if font.mono) >= self._most

    @property
    def bold(self) -> bool:
        return sum(self.fonts[font] for font in self.fonts if font.bold) >= self._most

    @property
    def _most(self) -> float:
        return _MOST * self.fonts.total()


class _Segment(NamedTuple):
    cell: Fragment
    base: float
    size: float
    fonts: Counter[Font]


_T = TypeVar("_T", Word, _Segment)


def read_lines(words: Sequence[Word], rules: Sequence[Rule], page: int) -> Iterator[Line]:
    """Yields the lines of a page in reading order, from its words in any order."""
    segments = [segment for row in _rows(words) for segment in _segments(row)]
    regions = list(_regions(segments, 0))
    for region in regions:
        column = Column(
            min(segment.cell.left for segment in region),
            max(segment.cell.right for segment in region),
            len(regions) == 1,
        )
        lines = [_line(row, page, column) for row in _rows(region)]
        for line, below in pairwise(lines):
            line.ruled = any(
                below.base < rule.height < line.base
                and rule.left < below.right
                and rule.right > below.left
                for rule in rules
            )
        yield from lines


def _rows(things: Sequence[_T]) -> Iterator[list[_T]]:
    """Yields what stands on one line, from the top of the page."""
    row: list[_T] = []
    for thing in sorted(things, key=lambda one: -one.base):
        if row and row[0].base - thing.base > _ROW_HEIGHT * max(row[0].size, thing.size):
            yield row
            row = []
        row.append(thing)
    if row:
        yield row


def _segments(row: Sequence[Word]) -> Iterator[_Segment]:
    """Yields the parts of a row that wide gaps separate."""
    part: list[Word] = []
    is_first = True
    for word in sorted(row, key=lambda one: one.left):
        if part:
            last = part[-1]
            if word.text == last.text and abs(word.left - last.left) < 0.1 * word.size:
                continue  # Drawn twice, to look bold.
            is_name = is_first and part[0].font.mono and last.font.mono and not word.font.mono
            gap = _TERM_GAP if is_name else _CELL_GAP
            if word.left - last.right > gap * min(word.size, last.size):
                yield _segment(part)
                part, is_first = [], False
        part.append(word)
    if part:
        yield _segment(part)


def _segment(words: Sequence[Word]) -> _Segment:
    text = words[0].text
    for last, word in pairwise(words):
        gap = word.spaced or word.left - last.right > _WORD_GAP * min(word.size, last.size)
        text += " " * gap + word.text
    # Indices above and below the line are few.
    sizes = Counter[tuple[float, float]]()
    fonts = Counter[Font]()
    for word in words:
        sizes[word.size, word.base] += len(word.text)
        fonts[word.font] += max(1, len(word.text))
    (size, base), _ = sizes.most_common(1)[0]
    cell = Fragment(text, words[0].left, max(word.right for word in words))
    return _Segment(cell, base, size, fonts)


def _line(row: Sequence[_Segment], page: int, column: Column) -> Line:
    row = sorted(row, key=lambda one: one.cell.left)
    cells = [segment.cell for segment in row]
    if len(cells) > 1 and _MARKER.fullmatch(cells[0].text):
        joined = f"{cells[0].text} {cells[1].text}"
        cells[:2] = [Fragment(joined, cells[0].left, cells[1].right)]
    largest = max(row, key=lambda one: len(one.cell.text))
    fonts = sum((segment.fonts for segment in row), Counter[Font]())
    return Line(cells, largest.base, largest.size, fonts, page, column)


def _regions(segments: Sequence[_Segment], depth: int) -> Iterator[list[_Segment]]:
    """Yields the segments of each column, in reading order."""
    gutter = _gutter(segments) if depth < _MAX_COLUMN_DEPTH else None
    if gutter is None:
        if segments:
            yield list(segments)
        return
    plain: list[_Segment] = []
    rows = sorted(segments, key=lambda one: -one.base)
    for crosses, group in groupby(rows, lambda one: one.cell.left < gutter < one.cell.right):
        band = list(group)
        left = [segment for segment in band if segment.cell.right <= gutter]
        right = [segment for segment in band if segment.cell.left >= gutter]
        if crosses or not (_is_prose(left) and _is_prose(right)):
            plain += band
            continue
        yield from _regions(plain, _MAX_COLUMN_DEPTH)
        plain = []
        yield from _regions(left, depth + 1)
        yield from _regions(right, depth + 1)
    yield from _regions(plain, _MAX_COLUMN_DEPTH)


def _gutter(segments: Sequence[_Segment]) -> float | None:
    """Returns where a column begins, if there are two."""
    if len(segments) < 2 * _MIN_COLUMN_LINES:
        return None
    low = min(segment.cell.left for segment in segments)
    width = max(segment.cell.right for segment in segments) - low
    edges = Counter(round(segment.cell.left) for segment in segments)
    best, fewest = None, len(segments) * 0.5
    for edge, count in edges.items():
        if count < _MIN_COLUMN_LINES or not 0.2 * width < edge - low < 0.8 * width:
            continue
        crossing = sum(s.cell.left < edge - 2 < s.cell.right for s in segments)
        if crossing < fewest:
            best, fewest = edge - 2.0, crossing
    return best


def _is_prose(segments: Sequence[_Segment]) -> bool:
    if len(segments) < _MIN_COLUMN_LINES:
        return False
    width = max(s.cell.right for s in segments) - min(s.cell.left for s in segments)
    return (
        median(len(s.cell.text) for s in segments) >= _MIN_COLUMN_CHARACTERS
        and median(s.cell.right - s.cell.left for s in segments) >= 0.5 * width
    )

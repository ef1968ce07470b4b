"""Tables of a page: lines whose cells stand below each other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from index_builder.readers.pages.layout import Fragment, Line
from index_builder.readers.structured_text import Part, PartKind
from index_builder.readers.table_rows import Cell, is_header, table_parts

_MIN_ROWS = 3
_DIGIT = re.compile(r"\d")
_CAPTION = re.compile(r"(?:Tab(?:le|elle|leau|la|\.)?|Exhibit)\s+[\dIVXA-Z]")
_LEADER = re.compile(r"(?:\s?[.·…_]){3,}\s*")


class Table(NamedTuple):
    """A table. lines: The number of lines it takes."""

    lines: int
    parts: list[Part]


class _Row(NamedTuple):
    cells: list[str]
    lines: list[Line]


def read_table(lines: Sequence[Line]) -> Table | None:
    """Returns the table with which lines of a column begin, if they do."""
    columns = _columns(lines)
    if columns is None:
        return None
    count = 0
    for line in lines:
        places = [_place(cell, columns) for cell in line.cells]
        if None in places or len(set(places)) < len(places):
            break
        if places == [0] and not line.ruled:
            following = lines[count + 1 : count + 2]
            if not following or len(following[0].cells) < 2:
                break
        count += 1
    while count and len(lines[count - 1].cells) == 1 and lines[count - 1].left < columns[1][0] - 1:
        count -= 1
    while count and is_caption(lines[count - 1].text):
        count -= 1
    full = sum(len(line.cells) > 1 for line in lines[:count])
    ruled = any(line.ruled for line in lines[:count])
    if full < (2 if ruled else _MIN_ROWS):
        return None
    rows = _rows(lines[:count], columns)
    texts = [[_LEADER.sub(" ", text).strip() for text in row.cells] for row in rows]
    parts = [[[Part(PartKind.PARAGRAPH, text)] if text else [] for text in row] for row in texts]
    has_header = _has_header(rows)
    cells = [[Cell(one, has_header and not at) for one in row] for at, row in enumerate(parts)]
    return Table(count, table_parts(cells))


def is_caption(text: str) -> bool:
    """Returns whether a paragraph is the caption of a table."""
    return _CAPTION.match(text) is not None


def _columns(lines: Sequence[Line]) -> list[tuple[float, float]] | None:
    """Returns the left and right edges of columns; None if cells are not below each other."""
    counts = Counter(len(line.cells) for line in lines[:40])
    width = max((count for count in counts if count > 1 and counts[count] > 1), default=0)
    if not width:
        return None
    edges: list[tuple[float, float]] = []
    for line in lines:
        if len(line.cells) != width:
            continue
        spans = [(cell.left, cell.right) for cell in line.cells]
        wider = [
            (min(a, c), max(b, d)) for (a, b), (c, d) in zip(edges or spans, spans, strict=True)
        ]
        if any(one[1] > two[0] for one, two in pairwise(wider)):
            break
        edges = wider
    return edges or None


def _place(cell: Fragment, columns: Sequence[tuple[float, float]]) -> int | None:
    """Returns the column of a cell; None if it stands in none, or in all."""
    overlaps = [min(cell.right, right) - max(cell.left, left) for left, right in columns]
    best = max(range(len(columns)), key=lambda at: overlaps[at])
    touched = sum(overlap > 1 for overlap in overlaps)
    if overlaps[best] <= 0 or (touched > 1 and touched == len(columns)):
        return None
    return best


def _rows(lines: Sequence[Line], columns: Sequence[tuple[float, float]]) -> list[_Row]:
    """Returns rows; a cell may have several lines."""
    rules = sum(line.ruled for line in lines[:-1])
    by_rules = rules > 1 and rules >= 0.3 * len(lines)
    gaps = [one.base - two.base for one, two in pairwise(lines)]
    usual = median(gaps) if gaps else 0.0
    rows: list[_Row] = []
    for at, line in enumerate(lines):
        cells = [""] * len(columns)
        for cell in line.cells:
            cells[_place(cell, columns) or 0] = cell.text
        more = not any(map(_DIGIT.search, cells)) or sum(map(bool, cells)) == 1
        if rows and by_rules:
            joins = not lines[at - 1].ruled
        else:
            joins = bool(rows) and not cells[0] and more and gaps[at - 1] <= 1.05 * usual
        if joins:
            pairs = zip(rows[-1].cells, cells, strict=True)
            cells = [f"{one} {below}".strip() for one, below in pairs]
            rows[-1] = _Row(cells, [*rows[-1].lines, line])
        else:
            rows.append(_Row(cells, [line]))
    return rows


def _has_header(rows: Sequence[_Row]) -> bool:
    first, *others = rows
    if not others or sum(map(bool, first.cells)) < 2:
        return False
    if all(line.bold for line in first.lines):
        return not all(line.bold for row in others for line in row.lines)
    ruled = [row.lines[-1].ruled for row in rows[:-1]]
    named = all(name and not _DIGIT.search(name) for name in first.cells)
    if ruled[0] and (not any(ruled[1:]) or (named and len(first.cells) > 2 and all(ruled))):
        return True
    return is_header([row.cells for row in rows])

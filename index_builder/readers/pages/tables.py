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
from index_builder.readers.table_rows import Cell, table_parts

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
    header = _has_header(rows)
    table = [
        [Cell(_cell(text), is_header=header and at == 0) for text in row.cells]
        for at, row in enumerate(rows)
    ]
    return Table(count, table_parts(table))


def is_caption(text: str) -> bool:
    """Returns whether a paragraph is the caption of a table."""
    return _CAPTION.match(text) is not None


def _cell(text: str) -> list[Part]:
    text = _LEADER.sub(" ", text).strip()
    return [Part(PartKind.PARAGRAPH, text)] if text else []


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
        if by_rules:
            joins = at > 0 and not lines[at - 1].ruled
        else:
            near = at > 0 and gaps[at - 1] <= 1.05 * usual
            joins = near and not cells[0] and not any(map(_DIGIT.search, cells))
            joins = joins or (near and not cells[0] and sum(map(bool, cells)) == 1)
        if joins and rows:
            last = rows[-1]
            joined = [f"{a} {b}".strip() for a, b in zip(last.cells, cells, strict=True)]
            rows[-1] = _Row(joined, [*last.lines, line])
        else:
            rows.append(_Row(cells, [line]))
    return rows


def _has_header(rows: Sequence[_Row]) -> bool:
    first, others = rows[0], rows[1:]
    if not others or sum(map(bool, first.cells)) < 2:
        return False
    fonts = [{font for line in row.lines for font in line.fonts} for row in rows]
    if all(line.bold for line in first.lines) and not all(
        line.bold for row in others for line in row.lines
    ):
        return True
    if all(fonts[0].isdisjoint(font) for font in fonts[1:]):
        return True
    if first.lines[-1].ruled and not any(row.lines[-1].ruled for row in others[:-1]):
        return True
    named = all(name and not _DIGIT.search(name) for name in first.cells)
    if named and len(first.cells) > 2 and all(row.lines[-1].ruled for row in rows[:-1]):
        return True
    # Names above numbers.
    return any(
        name
        and not _DIGIT.search(name)
        and sum(bool(_DIGIT.search(row.cells[at])) for row in others) >= 0.7 * len(others)
        for at, name in enumerate(first.cells)
    ) and not any(map(_DIGIT.search, first.cells))

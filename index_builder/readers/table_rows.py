"""Tables as rows that stand alone: each cell with the header of its column."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from index_builder.readers.structured_text import Part, PartKind, items, one_line, paragraph

MAX_COLUMNS = 64
MAX_ROWS_SPANNED = 1_000
_MAX_HEADER_ROWS = 3
_DIGIT = re.compile(r"\d")
# Longer cells are no headers, and stand only in the first of the rows that they span.
_MAX_REPEATED = 150
# Repeating is worth this many characters, and a multiple of the table's own.
_FREE_REPEATS, _REPEATS_PER_CHARACTER = 100_000, 8


class Cell(NamedTuple):
    """A cell. is_header: Whether it is marked as one. is_bold: Whether all of its text is bold."""

    parts: list[Part]
    is_header: bool = False
    is_bold: bool = False
    links_only: bool = False
    rows: int = 1
    columns: int = 1


class _Place(NamedTuple):
    """A cell at one of its places. text: Its text in one line."""

    cell: Cell
    text: str
    is_first: bool


def is_header(rows: Sequence[Sequence[str]]) -> bool:
    """Returns whether the first of rows holds names: above numbers, or next to an empty corner."""
    first, *others = rows
    if not others or sum(map(bool, first)) < 2 or any(map(_DIGIT.search, first)):
        return False
    return (not first[0] and all(first[1:])) or any(
        name and sum(bool(_DIGIT.search(row[at])) for row in others) >= 0.7 * len(others)
        for at, name in enumerate(first)
    )


def table_parts(rows: Sequence[Sequence[Cell]], is_layout: bool = False) -> list[Part]:
    """Returns a table as parts: lists of rows, and the lines between groups of rows.

    A table that arranges blocks on the page is those blocks, and one of links only is nothing.
    is_layout: Whether the page says that the table only arranges.
    """
    rows = [row for row in rows if row]
    filled = [cell for cell in chain.from_iterable(rows) if cell.parts]
    headers = _header_rows(rows)
    width = max((sum(cell.columns for cell in row) for row in rows), default=0)
    if not headers:
        if len(filled) > 1 and all(cell.links_only for cell in filled):
            return []
        if is_layout or width < 2 or any(map(_arranges, filled)):
            return list(chain.from_iterable(_blocks(row) for row in rows))
    return _data(_placed(rows), headers, width)


def _header_rows(rows: Sequence[Sequence[Cell]]) -> int:
    """Returns the number of rows at the top that are headers."""
    count = 0
    for row in rows[: min(len(rows) - 1, _MAX_HEADER_ROWS)]:
        filled = [cell for cell in row if cell.parts]
        marked = filled and all(cell.is_header for cell in row if cell.parts or cell.is_header)
        first_bold = count == 0 and len(filled) > 1 and all(cell.is_bold for cell in filled)
        if not (marked or first_bold) or any(
            len(one_line(cell.parts)) > _MAX_REPEATED for cell in filled
        ):
            break
        count += 1
        if first_bold and not marked:
            break
    return count


def _arranges(cell: Cell) -> bool:
    """Returns whether a cell holds parts of a page rather than data."""
    nested = any(part.kind is PartKind.HEADING for part in cell.parts)
    return nested or len(cell.parts) > 3


def _blocks(row: Sequence[Cell]) -> Iterable[Part]:
    filled = [cell for cell in row if cell.parts]
    if any(map(_arranges, filled)):
        # A menu stands next to the page.
        filled = [cell for cell in filled if not cell.links_only]
    if len(filled) > 1 and all(
        len(cell.parts) == 1 and cell.parts[0].kind is PartKind.PARAGRAPH for cell in filled
    ):
        places = (_Place(cell, one_line(cell.parts), True) for cell in filled)
        written = items([_row(dict(enumerate(places)), {})])
        return [written] if written else []
    return chain.from_iterable(cell.parts for cell in filled)


def _placed(rows: Sequence[Sequence[Cell]]) -> list[dict[int, _Place]]:
    """Returns the cells of each row by column, also those that span it from above."""
    grid: list[dict[int, _Place]] = []
    # For each column: the cell that spans it, and the number of further rows.
    spanning: dict[int, tuple[_Place, int]] = {}
    budget = _FREE_REPEATS
    for row in rows:
        placed: dict[int, _Place] = {}
        for column, (place, left) in list(spanning.items()):
            if left == 1:
                del spanning[column]
            else:
                spanning[column] = (place, left - 1)
            if len(place.text) <= _MAX_REPEATED and len(place.text) < budget:
                budget -= len(place.text) + 1
                placed[column] = place
            else:
                placed[column] = place._replace(text="")
        column = 0
        for cell in row:
            text = one_line(cell.parts)
            budget += len(text) * _REPEATS_PER_CHARACTER
            while column in placed:
                column += 1
            for offset in range(cell.columns):
                if column + offset >= MAX_COLUMNS and offset:
                    break
                place = _Place(cell, text, offset == 0)
                placed[column + offset] = place
                if cell.rows > 1 and column + offset < MAX_COLUMNS:
                    spanning[column + offset] = (place, cell.rows - 1)
            column += cell.columns
        grid.append(placed)
    return grid


def _data(grid: Sequence[dict[int, _Place]], headers: int, width: int) -> list[Part]:
    names = _names(grid[:headers])
    parts: list[Part | None] = []
    written: list[str] = []
    budget = _FREE_REPEATS
    for row in grid[headers:]:
        places = [row[column] for column in sorted(row)]
        own = sum(len(place.text) for place in places)
        if width > 1 and len(places) >= width and places[0].cell.columns >= width:
            # A row of one cell names the rows below it.
            parts += [items(written), paragraph(f"{places[0].text.rstrip(' :')}:" if own else "")]
            written = []
            continue
        needed = sum(len(names.get(column, "")) for column, place in row.items() if place.text)
        budget += own * _REPEATS_PER_CHARACTER - needed
        written.append(_row(row, names if budget > 0 else {}))
    return [part for part in [*parts, items(written)] if part is not None]


def _names(rows: Iterable[dict[int, _Place]]) -> dict[int, str]:
    """Returns the name of each column: the different headers above it."""
    names: dict[int, list[str]] = {}
    for row in rows:
        for column, place in row.items():
            if place.text and place.text not in names.setdefault(column, []):
                names[column].append(place.text)
    return {column: " ".join(texts).rstrip(" :") for column, texts in names.items()}


def _row(row: dict[int, _Place], names: dict[int, str]) -> str:
    """Returns the item of a row; empty if it has no text."""
    filled = [
        (names.get(column, ""), place)
        for column, place in sorted(row.items(), key=lambda pair: pair[0])
        if place.text and place.is_first
    ]
    if not any(character.isalnum() for _, place in filled for character in place.text):
        return ""
    named = any(name for name, _ in filled)
    first = filled[0][1]
    if len(row) == 1 and len(first.cell.parts) > 1:
        # One column: what it begins with is the term.
        head, *rest = first.cell.parts
        return f"- {one_line([head]).rstrip(' :')}: {one_line(rest)}"
    written = [f"{name}: {place.text}" if name else place.text for name, place in filled]
    is_subject = not filled[0][0] and (named or len(row) == 2 or first.cell.is_header)
    if is_subject and len(filled) > 1:
        return f"- {first.text.rstrip(' :')}: {'; '.join(written[1:])}"
    return f"- {'; '.join(written)}"

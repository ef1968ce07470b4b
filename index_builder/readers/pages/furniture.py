"""Finds headers, footers, page numbers, tables of contents and indexes of pages."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

from index_builder.readers.pages.layout import Line

_EDGE_LINES = 2  # At the top and at the bottom of a page.
_MAX_FURNITURE = 120  # Characters.
_NUMBER = re.compile(r"(?<![\w.])\d{1,5}(?![\w.]\d|\w)")
_ROMAN = re.compile(r"\b[ivxl]{1,7}\b")
_LEADER = re.compile(r"(?<![.·…_\s])\s{0,9}(?:[.·…_]\s?){4,}+\s*+(\d{1,5}|[ivxlc]{1,8})$")
_ENTRY = re.compile(r".*\D[\s,](\d{1,5}|[ivxlc]{1,8})")
_CONTENTS = re.compile(
    r"(?:short |table of |brief )?contents|(?:[\w.]{1,5}\s)?(?:\w+ ){0,4}index(?: of .*)?"
    r"|list of (?:figures|tables)|inhalt(?:sverzeichnis)?|table des matières|índice|indice",
    re.IGNORECASE,
)
_MIN_ENTRIES = 4
_MANY = 5  # Pages with the same line.
_MAX_LETTER = 4
_MIN_SHARE = 0.4


def body_lines(lines: Sequence[Line]) -> list[Line]:
    """Returns lines without headers, footers, page numbers, contents and indexes."""
    pages: dict[int, list[Line]] = defaultdict(list)
    for line in lines:
        pages[line.page].append(line)
    repeated = _furniture(pages)
    kept: list[Line] = []
    was_contents = False
    for page in pages.values():
        body = [line for line in page if line not in repeated]
        first, last = _contents(body, was_contents)
        was_contents = last > first
        rest = body[:first] + body[last:]
        # The letters above the entries of an index.
        kept += [line for line in rest if not was_contents or len(line.text) > _MAX_LETTER]
    return kept


def is_contents(text: str) -> bool:
    """Returns whether a heading is that of a table of contents or an index."""
    return _CONTENTS.fullmatch(text) is not None


def _furniture(pages: Mapping[int, Sequence[Line]]) -> set[Line]:
    """Returns lines at the edges of pages with the number of the page, or the text of others."""
    edges: list[Line] = []
    for page in pages.values():
        ordered = sorted(page, key=lambda line: -line.base)
        # A page of three lines is all edges.
        size = _EDGE_LINES if len(ordered) > 2 * _EDGE_LINES else 1
        edges += [*ordered[:size], *ordered[size:][-size:]]
    edges = [line for line in edges if len(line.text) <= _MAX_FURNITURE]
    offsets = Counter(offset for line in edges for offset in {n - line.page for n in _ints(line)})
    offset = max(offsets, key=lambda offset: offsets[offset], default=0)
    few = max(2, len(pages) * 0.3)
    numbered = {line for line in edges if line.page + offset in _ints(line)}
    heights = Counter(_form(line)[1] for line in numbered)
    texts = Counter(_form(line) for line in edges)
    return {
        line
        for line in edges
        if texts[_form(line)] >= min(few, _MANY)
        or (line in numbered and heights[_form(line)[1]] >= few)
    }


def _ints(line: Line) -> set[int]:
    return {int(found) for found in _NUMBER.findall(line.text)}


def _form(line: Line) -> tuple[str, int]:
    """Returns the text of a line without numbers, and its height."""
    return _ROMAN.sub("#", _NUMBER.sub("#", line.text)), round(line.base / 4)


def _contents(page: Sequence[Line], follows: bool) -> tuple[int, int]:
    """Returns where contents or an index begin and end among the lines of a page.

    follows: Whether the page before has some.
    """
    texts = [line.text for line in page]
    leaders = [at for at, text in enumerate(texts) if _LEADER.search(text)]
    headed = any(is_contents(text) for text in texts[:4])
    entries = leaders
    if headed or (follows and leaders):
        entries = [at for at, text in enumerate(texts) if _ENTRY.fullmatch(text)]
    enough = len(entries) >= max(1 if follows else _MIN_ENTRIES, _MIN_SHARE * len(page))
    if not (follows and leaders) and not (enough and (headed or _ascending(texts, leaders))):
        return 0, 0
    first = entries[0]
    while first and (is_contents(texts[first - 1]) or len(texts[first - 1]) < 3 or headed):
        first -= 1
    return first, entries[-1] + 1


def _ascending(texts: Sequence[str], leaders: Sequence[int]) -> bool:
    """Returns whether entries are in the order of their pages; prices are not."""
    found = (_LEADER.findall(texts[at])[-1] for at in leaders)
    numbers = [int(page) for page in found if page.isdigit()]
    ordered = sum(one <= next_ for one, next_ in pairwise(numbers))
    return ordered >= 0.8 * (len(numbers) - 1)

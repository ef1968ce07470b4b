"""The headings of a paginated document: by its outline, and by size and weight of the font."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from index_builder.readers.pages.layout import Line

BULLET = re.compile(r"([•◦▪‣●○■□*·–—-])\s+(?=\S)")
# Distances in sizes of the font.
_DEEPER = 1.2
_SAME_SIZE = 0.08
_HEADING_SIZE = 1.12
_MAX_GAP = 1.2  # Of the usual distance between lines.
_MAX_HEADING = 150
_MAX_HEADING_LINES = 3
_NUMBERED = re.compile(
    r"\A(?:(?i:appendix|chapter|section|part)\s+)?(?:\d{1,3}|[A-Z]|[IVXL]{1,5})(?:\.\d+)*[.:)]?\s+"
)
_ALNUM = re.compile(r"[\W_]+")


class Bookmark(NamedTuple):
    """An entry of the outline of a file. level: From 0. page: From 0."""

    title: str
    level: int
    page: int


class Heading(NamedTuple):
    """A heading. lines: The number of lines it takes."""

    level: int
    lines: int


class Typography:
    """What most lines of a document have in common.

    size: Of the font. right: Right edge of lines that are full.
    """

    def __init__(self, lines: Sequence[Line]) -> None:
        sizes = Counter[float]()
        for line in lines:
            sizes[round(line.size * 2) / 2] += len(line.text) * (1 if line.mono else 3)
        self.size = max(sizes, key=lambda size: sizes[size])
        # Distances of lines, and right edges, of the usual size.
        gaps = [
            round((one.base - two.base) / two.size, 1)
            for one, two in pairwise(lines)
            if one.column is two.column and one.base > two.base and self.is_usual(two)
        ]
        self._leading = Counter(gap for gap in gaps if gap < 2.5).most_common(1)
        rights = sorted(line.right for line in lines if line.column.whole and self.is_usual(line))
        self.right = rights[int(len(rights) * 0.97)] if rights else 0.0

    def is_usual(self, line: Line) -> bool:
        """Returns whether a line has the usual size."""
        return abs(line.size - self.size) <= _SAME_SIZE * self.size

    def gap(self, before: Line, line: Line) -> float:
        """Returns the distance of two lines of a column, relative to what is usual."""
        usual = self._leading[0][0] if self._leading else 1.2
        return (before.base - line.base) / (max(before.size, line.size) * usual)


class Headings:
    """The headings among the lines of a document."""

    def __init__(
        self, lines: Sequence[Line], bookmarks: Sequence[Bookmark], typography: Typography
    ) -> None:
        self._lines = lines
        self._type = typography
        self._levels = self._outline(bookmarks)
        self._styles = self._heading_styles()

    def __contains__(self, line: Line) -> bool:
        """Returns whether the outline names a heading that begins with this line."""
        return line in self._levels

    def at(self, at: int) -> Heading | None:
        """Returns the heading that begins with a line, if one does."""
        line = self._lines[at]
        known = self._levels.get(line)
        if known is not None:
            return known
        if not self._looks_like_heading(at):
            return None
        count = 1
        for before, next_ in pairwise(self._lines[at : at + _MAX_HEADING_LINES + 1]):
            same = next_.column is line.column and _style(next_) == _style(line)
            if not same or next_ in self._levels or self._type.gap(before, next_) > 1.3:
                break
            if not self._looks_like_heading(at + count):
                break
            count += 1
        if count > _MAX_HEADING_LINES:
            return None
        return Heading(self._styles[_style(line)], count)

    def _outline(self, bookmarks: Sequence[Bookmark]) -> dict[Line, Heading]:
        """Returns the headings of the outline by the lines with which they begin."""
        by_page: dict[int, list[int]] = {}
        for at, line in enumerate(self._lines):
            by_page.setdefault(line.page, []).append(at)
        found: dict[Line, Heading] = {}
        for bookmark in bookmarks:
            wanted = heading_keys(bookmark.title)
            for at in by_page.get(bookmark.page, []) if wanted else []:
                line = self._lines[at]
                if line in found or (line.mono and not line.bold and self._type.is_usual(line)):
                    continue
                texts = [one.text for one in self._lines[at : at + _MAX_HEADING_LINES]]
                for count in range(1, len(texts) + 1):
                    text = " ".join(texts[:count])
                    if wanted & heading_keys(text) and not BULLET.match(text):
                        found[line] = Heading(min(6, bookmark.level + 1), count)
                        break
                if line in found:
                    break
        return found

    def _heading_styles(self) -> dict[tuple[float, bool], int]:
        """Returns the level of each style of headings."""
        known: dict[tuple[float, bool], Counter[int]] = {}
        for line, heading in self._levels.items():
            known.setdefault(_style(line), Counter())[heading.level] += 1
        levels = {style: counts.most_common(1)[0][0] for style, counts in known.items()}
        others = {
            _style(line)
            for at, line in enumerate(self._lines)
            if line not in self._levels and self._looks_like_heading(at)
        }
        for style in sorted(others - set(levels), reverse=True):
            above = [level for other, level in levels.items() if other > style]
            levels[style] = min(6, max(above, default=0) + 1)
        return levels

    def _looks_like_heading(self, at: int) -> bool:
        line = self._lines[at]
        text = line.text
        if line.mono or len(line.cells) > 2 or not 1 < len(text) <= _MAX_HEADING:
            return False
        if line.size >= _HEADING_SIZE * self._type.size:
            return any(map(str.isalpha, text))
        if not line.bold or line.size < 0.97 * self._type.size or text.endswith((*",;.:",)):
            return False
        if len(line.cells) > 1 and not _NUMBERED.match(text):
            return False
        for after in self._lines[at + 1 : at + 2]:
            deeper = after.left > line.left + _DEEPER * line.size and not BULLET.match(after.text)
            if after.column is line.column and not after.bold and deeper:
                return False  # A term with its description.
        before = self._lines[at - 1] if at else line
        return (
            before.column is not line.column
            or before.bold
            or self._type.gap(before, line) > _MAX_GAP
        )


def _style(line: Line) -> tuple[float, bool]:
    return round(line.size * 2) / 2, line.bold


def heading_keys(text: str) -> set[str]:
    """Returns the letters of a heading, with and without its number."""
    both = (_ALNUM.sub("", one).lower() for one in (text, _NUMBERED.sub("", text, count=1)))
    return {one for one in both if one}

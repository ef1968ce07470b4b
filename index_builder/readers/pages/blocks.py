"""The blocks of a paginated document: its lines to structured text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import pairwise

from index_builder.readers.pages.headings import BULLET, Bookmark, Headings, Typography
from index_builder.readers.pages.layout import Line
from index_builder.readers.pages.tables import read_table
from index_builder.readers.structured_text import Part

# Distances in sizes of the font.
_SAME_EDGE = 0.5
_SAME_SIZE = 0.08
_MAX_GAP = 1.2  # Of the usual distance between lines.
_MAX_TERM = 100
_MAX_TABLE_LINES = 500
_MAX_CODE_LINES = 2_000
NUMBER = re.compile(r"(\(?(?:\d{1,3}|[A-Za-z]|[ivx]{1,4})[.)])\s+(?=\S)")
END = (".", "!", "?", ":", ".”", ".)", ".’", '."')
_HYPHENATED = re.compile(r"(?<!\w)\w++(?:-\w++)++")
_WORDS = re.compile(r"\w+")
_LEADER = re.compile(r"(?<![.·…_])(?<![.·…_]\s)(?:\s?[.·…_]){5,}+\s*+(?=\S)")


class Kind(Enum):
    """The kind of a block."""

    HEADING = "heading"
    TABLE = "table"
    CODE = "code"
    ITEM = "item"
    TEXT = "text"


@dataclass(slots=True, eq=False)
class Block:
    """Lines that belong together. level: Of a heading. part: Of a table."""

    kind: Kind
    lines: list[Line]
    level: int = 0
    # Lines of text; each but the last ends where its author ended it.
    texts: list[str] = field(default_factory=list)
    part: list[Part] = field(default_factory=list)

    @property
    def left(self) -> float:
        """Distance to the left edge of its column."""
        lines = self.lines[:1] if self.kind is Kind.ITEM else self.lines
        return min(line.offset for line in lines)

    @property
    def size(self) -> float:
        return self.lines[0].size


class Blocks:
    """Puts the lines of all pages, without headers and the like, together to blocks."""

    def __init__(self, lines: Sequence[Line], bookmarks: Sequence[Bookmark]) -> None:
        text = "\n".join(line.text for line in lines)
        self._words = frozenset(_WORDS.findall(text.lower()))
        self._compounds = frozenset(_HYPHENATED.findall(text.lower()))
        self._type = Typography(lines)
        self._lines = self._terms_split(lines)
        self._headings = Headings(self._lines, bookmarks, self._type)

    def _terms_split(self, lines: Sequence[Line]) -> list[Line]:
        """Returns lines; a term with its description on the same line becomes two lines."""
        self._hanging = {
            round(line.cells[1].left - line.column.left)
            for line, next_ in pairwise(lines)
            if self._may_split(line)
            and next_.column is line.column
            and len(next_.cells) == 1
            and abs(next_.left - line.cells[1].left) < 1
            and self._type.gap(line, next_) <= _MAX_GAP
        }
        split: list[Line] = []
        for line in lines:
            if self._may_split(line) and (
                round(line.cells[1].left - line.column.left) in self._hanging
            ):
                term, *others = line.cells
                split += [replace(line, cells=[term]), replace(line, cells=others)]
            else:
                split.append(line)
        return split

    def _may_split(self, line: Line) -> bool:
        return len(line.cells) == 2 and len(line.cells[0].text) < _MAX_TERM and not line.ruled

    def read(self) -> list[Block]:
        """Returns the blocks of the document."""
        blocks: list[Block] = []
        at = 0
        while at < len(self._lines):
            block = self._heading(at) or self._table(at) or self._code(at, blocks)
            if block is None:
                at += self._add_text(at, blocks)
                continue
            blocks.append(block)
            at += len(block.lines)
        return [block for block in blocks if block.lines]

    def _heading(self, at: int) -> Block | None:
        found = self._headings.at(at)
        if found is None:
            return None
        lines = self._lines[at : at + found.lines]
        texts = [" ".join(one.text for one in lines)]
        return Block(Kind.HEADING, lines, found.level, texts)

    def _table(self, at: int) -> Block | None:
        lines: list[Line] = []
        for line in self._lines[at : at + _MAX_TABLE_LINES]:
            if line in self._headings or (lines and line.column is not lines[0].column):
                break
            if line.mono and not lines:
                return None
            lines.append(line)
            if len(lines) == 1 and len(line.cells) < 2:
                return None
            if len(lines) > 1 and self._type.gap(lines[-2], line) > 3:
                lines.pop()
                break
        rows = read_table(lines)
        return Block(Kind.TABLE, lines[: rows.lines], part=rows.parts) if rows else None

    def _code(self, at: int, blocks: Sequence[Block]) -> Block | None:
        line = self._lines[at]
        last = blocks[-1] if blocks else None
        if not line.mono:
            return None
        if last is not None and last.kind in (Kind.TEXT, Kind.ITEM):
            # Part of a paragraph, in which a line has only names.
            if self._continues(last, line) and not self._is_short(last.lines[-1], line):
                return None
        lines = [line]
        for next_ in self._lines[at + 1 : at + _MAX_CODE_LINES]:
            if not next_.mono or next_ in self._headings:
                break
            if next_.column is line.column and self._type.gap(lines[-1], next_) > 2.6:
                break
            offset, first = next_.offset, lines[0].offset
            # Terms stand left of code, and their descriptions far to the right.
            if offset < first - next_.size or (
                len(lines) < 4 and self._hanging and offset > first + min(self._hanging) - 1
            ):
                break
            lines.append(next_)
        return Block(Kind.CODE, lines)

    def _add_text(self, at: int, blocks: list[Block]) -> int:
        """Adds a line of text to the last block or a new one; returns the number of lines."""
        line = self._lines[at]
        text = line.text
        leader = _LEADER.search(text)
        if leader is not None:
            text = f"{text[: leader.start()]}: {text[leader.end() :]}"
        marker = leader or BULLET.match(text) or NUMBER.match(text)
        last = self._open_block(blocks, line)
        if last is not None and not (marker and not self._is_sentence(last, line)):
            before = last.lines[-1]
            if self._continues(last, line):
                if before.column is line.column and self._is_short(before, line):
                    if before.text.endswith(END) and last.kind is Kind.TEXT:
                        blocks.append(Block(Kind.TEXT, [line], texts=[text]))
                        return 1
                    last.texts.append(text)
                else:
                    last.texts[-1] = self._joined(last.texts[-1], text)
                last.lines.append(line)
                return 1
        kind = Kind.ITEM if marker else Kind.TEXT
        blocks.append(Block(kind, [line], texts=[text]))
        return 1

    def _is_sentence(self, last: Block, line: Line) -> bool:
        """Returns whether what looks like a marker is within a sentence, such as a dash."""
        same_edge = abs(last.lines[-1].left - line.left) < _SAME_EDGE * line.size
        wrapped = not self._is_short(last.lines[-1], line)
        return (
            same_edge
            and wrapped
            and not last.texts[-1].endswith(END)
            and (last.kind is Kind.TEXT and self._type.gap(last.lines[-1], line) <= _MAX_GAP)
        )

    def _open_block(self, blocks: Sequence[Block], line: Line) -> Block | None:
        """Returns the paragraph that a line may continue, on its page or the one before."""
        for block in reversed(blocks[-4:]):
            if block.kind not in (Kind.TEXT, Kind.ITEM):
                return None
            small = block.size < 0.93 * self._type.size <= line.size
            if block.lines[-1].column is line.column or not small:
                return block
        return None

    def _continues(self, block: Block, line: Line) -> bool:
        """Returns whether a line may belong to a paragraph, by its place and size."""
        last = block.lines[-1]
        if abs(last.size - line.size) > 2 * _SAME_SIZE * last.size:
            return False
        left, size, edge = line.offset, line.size, last.offset
        if block.kind is Kind.ITEM and len(block.lines) == 1:
            below = abs(last.left - line.left) < _SAME_EDGE * size
            inside = edge + 0.3 * size < left < edge + 5 * size or (
                below and not self._is_short(last, line)
            )
        elif len(block.lines) == 1:
            inside = edge - 4 * size < left < edge + _SAME_EDGE * size
        else:
            inside = abs(left - edge) < _SAME_EDGE * size
        if last.column is line.column:
            usual = _MAX_GAP
            if len(block.lines) > 1 and block.lines[-2].column is last.column:
                usual = max(0.9, self._type.gap(block.lines[-2], last)) * 1.15
            if len(block.lines) == 1:
                # Or the second, indented line of an entry such as a reference.
                inside = inside or (left > edge and not self._is_short(last, line))
            return inside and 0 < self._type.gap(last, line) <= usual
        text = block.texts[-1]
        if text.endswith(END) and not line.text[:1].islower():
            return False
        return inside and not self._is_short(last, line)

    def _is_short(self, line: Line, next_: Line) -> bool:
        """Returns whether the first word of the next line would have fitted on a line."""
        right = max(line.column.right, self._type.right) if line.column.whole else line.column.right
        first = next_.cells[0]
        width = (first.right - first.left) / max(1, len(first.text))
        word = len(first.text.split(" ", 1)[0]) * width
        return line.right + word + line.size < right

    def _joined(self, text: str, next_: str) -> str:
        """Joins two lines of a paragraph; words that were hyphenated at the end become whole."""
        if not (text.endswith("-") and len(text) > 1 and text[-2].isalnum()):
            return f"{text} {next_}"
        before = text[:-1].rsplit(None, 1)[-1].lower().lstrip("(“\"'[")
        after = next_.split(None, 1)[0].lower().rstrip(".,;:!?)”\"'") if next_.strip() else ""
        if not after[:1].islower() or "-" in before[:1] or before + after in self._words:
            keep = before + after not in self._words
        else:
            keep = f"{before}-{after}" in self._compounds
        return text + next_ if keep else text[:-1] + next_

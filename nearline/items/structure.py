"""The structure of a text: headings, paragraphs, list items, code and rows of tables.

Readers of documents write a small subset of Markdown, and people write Markdown; so the stored text
alone says which heading, list item or lead each sentence belongs to. For example:

    ## Memory

    These settings matter:

    - shared_buffers (integer):

      The default is 128 MB.

The last paragraph has the path ("## Memory", "- shared_buffers (integer):"): the headings above it,
then the heads of the list items around it, each as it is written. `titles` shows a path without the
signs. A text without structure is a list of paragraphs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import NamedTuple

Path = tuple[str, ...]

# A head of a list item, or a heading, is cut to this length in a path.
_HEAD_CHARACTERS = 120
# Headings are looked for this far before a place; list items around it, this far.
_HEADINGS_BEFORE = 1 << 20
_ITEMS_BEFORE = 1 << 14
_TAB, _BLANK = 4, " \t\r"
# A longer line is no rule, no underline and no separator of a table.
_SIGN_CHARACTERS = 1_000
_HEADING = re.compile(r"(#{1,6})[ \t]+(\S.*)")
_UNDERLINE = re.compile(r"(?:={3,}|-{3,})[ \t]*")
_HEADING_OR_FENCE = re.compile(r"\n(?:[ \t]*(`{3,}|~{3,})(.*)| {0,3}(#{1,6})[ \t]+(\S.*))")
_FENCE = re.compile(r"`{3,}|~{3,}")
_MARKER = re.compile(r"(?:[-*+•]|\d{1,9}[.)])[ \t]+(?=\S)")
_RULE = re.compile(r"(?:(?:- *){3,}|(?:\* *){3,}|(?:_ *){3,})")
_SEPARATOR_ROW = re.compile(r"[\s:|-]+")
# In a path: the place is inside code.
_IN_CODE = "```"
_SIGNS = re.compile(r"^(?:#{1,6}|\s*-) ")


class Kind(Enum):
    """The kind of a block."""

    HEADING = "heading"
    PARAGRAPH = "paragraph"
    ITEM = "item"
    CODE = "code"
    ROW = "row"


class Block(NamedTuple):
    """A block of a text: code points start..end-1, without marker and fence.

    line: Start of its first line, before marker, fence and indentation. indent: Columns before its
    marker or text; the level of a heading. path: See the module. lead: Number of the block that
    introduces it, such as a sentence that ends with a colon or the first row of a table; -1 if
    there is none.
    """

    kind: Kind
    start: int
    end: int
    line: int
    indent: int
    path: Path
    lead: int = -1


def parse_blocks(text: str, section: Path = ()) -> Iterator[Block]:
    """Yields the blocks of a text, in time proportional to its length.

    Args:
        text: Any text, or a part of one that begins at a line or inside one.
        section: Path of its beginning, if it is a part of a longer text; see `section_at`.
    """
    return _Parser(text, section).parse(0, len(text))


def titles(path: Path) -> list[str]:
    """Returns the headings and item heads of a path, without signs and final colons."""
    return [_SIGNS.sub("", entry).rstrip(": ") for entry in path if entry != _IN_CODE]


def section_at(text: str, place: int) -> Path:
    """Returns the path of a place in a text.

    A place at the beginning of a block has its path; one further inside a list item is under the
    head of that item, too, and one inside code has a fence as its last entry. Headings are looked
    for in a million characters before the place.

    Args:
        text: The text.
        place: A code point.
    """
    if "\n" not in text:
        return ()
    headings: list[str] = []
    body = low = max(0, place - _HEADINGS_BEFORE)
    nearby, code = text.find("\n", max(0, place - _ITEMS_BEFORE)) + 1, -1
    for end, heading, in_code in _headings(text, low, place):
        if heading:
            while headings and _level(headings[-1]) >= _level(heading):
                headings.pop()
            headings.append(heading)
            body = end
        if end < nearby:
            code = text.rfind("\n", 0, end) + 1 if in_code else -1
    if place - body > _ITEMS_BEFORE:
        # Not inside code, whose closing fence would open another one.
        body = nearby if code < 0 else code
    end = text.find("\n", place)
    block = None
    parser = _Parser(text, tuple(headings))
    for found in parser.parse(min(body, place), len(text) if end < 0 else end):
        if found.line > place:
            break
        block = found
    return tuple(headings) if block is None else path_in(text, block, place)


def sections_at(text: str, places: Sequence[int]) -> list[Path]:
    """Returns what `section_at` returns for each of many places, in one pass.

    Args:
        text: The text.
        places: Code points, ascending.
    """
    if "\n" not in text:
        return [()] * len(places)
    found: list[Path] = []
    blocks = parse_blocks(text)
    block, after = None, next(blocks, None)
    for place in places:
        while after is not None and after.line <= place:
            block, after = after, next(blocks, None)
        found.append(() if block is None else path_in(text, block, place))
    return found


def path_in(text: str, block: Block, place: int) -> Path:
    """Returns the path of a place in a block; see `section_at`."""
    if block.kind is Kind.CODE and block.start <= place < block.end:
        return (*block.path, _IN_CODE)
    if block.kind is Kind.HEADING and place >= block.end:
        return (*block.path, _heading("#" * block.indent, text[block.start : block.end]))
    inside = block.kind is Kind.ITEM and place > block.start
    return (*block.path, _head(text, block)) if inside else block.path


def _headings(text: str, low: int, high: int) -> Iterator[tuple[int, str, bool]]:
    """Yields the headings, and the fences of code, of text[low:high].

    Yields: The end of the line; the heading, empty for a fence; and whether code follows.
    """
    # The first line has no end of a line before it.
    part, offset = (text[low:high], low) if low else (f"\n{text[:high]}", -1)
    fence = ""
    for found in _HEADING_OR_FENCE.finditer(part):
        mark, rest, signs, heading = found.groups()
        end = found.end() + offset
        if mark and not fence:
            fence = mark
            yield end, "", True
        elif mark and mark.startswith(fence) and not rest.strip():
            fence = ""
            yield end, "", False
        elif heading and not fence and text[end : end + 1] in ("", "\n"):
            yield end, _heading(signs, heading), False


def _heading(signs: str, written: str) -> str:
    return f"{signs} {written.rstrip().rstrip('#').rstrip(' :')[:_HEAD_CHARACTERS]}"


def _level(heading: str) -> int:
    return len(heading) - len(heading.lstrip("#"))


def _indent(head: str) -> int:
    return len(head) - len(head.lstrip(" "))


def _head(text: str, block: Block) -> str:
    """Returns the head of a list item: its term, or how it begins, with a colon."""
    line = text[block.start : min(block.end, block.start + 2 * _HEAD_CHARACTERS)].split("\n", 1)[0]
    term, colon, _ = line.partition(": ")
    if not colon or len(term) > _HEAD_CHARACTERS:
        term = line
    return f"{' ' * block.indent}- {term.strip().rstrip(':')[:_HEAD_CHARACTERS]}:"


class _Sibling(NamedTuple):
    """What is known of the last block at an indentation; see `Block`."""

    kind: Kind
    indent: int
    number: int
    lead: int
    introduces: bool


class _Parser:
    """Reads the lines of a text that has a section, and makes blocks."""

    def __init__(self, text: str, section: Path) -> None:
        self._text = text
        self._count = 0
        self._headings = [entry for entry in section if entry.startswith("#")]
        self._items = [entry for entry in section if not entry.startswith(("#", _IN_CODE))]
        self._fence = _IN_CODE if _IN_CODE in section else ""
        # By growing indentation; the last one is the block before.
        self._siblings: list[_Sibling] = []
        # The paragraph or item whose lines are being read.
        self._open: Block | None = None

    def parse(self, low: int, high: int) -> Iterator[Block]:
        """Yields the blocks of text[low:high]."""
        text = self._text
        at, fence, fence_line = low, self._fence, -1
        while at < high:
            end = text.find("\n", at, high)
            end = high if end < 0 else end
            start = at
            while start < end and text[start] in _BLANK:
                start += 1
            if fence:
                line = text[start:end]
                if line.startswith(fence) and not line.strip(f"{fence[0]}{_BLANK}"):
                    yield from self._code(fence_line, at)
                    fence = ""
            elif mark := _FENCE.match(text, start, end):
                yield from self._close()
                fence, fence_line = mark.group(), at
            elif start < end:
                yield from self._read(at, start, end)
            else:
                yield from self._close()
            at = end + 1
        if fence:
            yield from self._code(fence_line, high)
        yield from self._close()

    def _read(self, line: int, start: int, end: int) -> Iterator[Block]:
        """Reads a line with text: begins a block, or continues the open one."""
        text, opened = self._text, self._open
        indent = _columns(text, line, start)
        short = end - start <= _SIGN_CHARACTERS
        heading = _HEADING.fullmatch(text, start, end) if text[start] == "#" else None
        if heading is not None and indent < _TAB:
            yield from self._close()
            yield self._heading(line, heading.start(2), end, len(heading[1]))
        elif opened is not None and short and not indent and self._underlines(opened, start, end):
            self._open = None
            level = 1 if text[start] == "=" else 2
            yield self._heading(opened.line, opened.start, opened.end, level)
        elif short and _RULE.fullmatch(text, start, end):
            yield from self._close()
        elif marker := _MARKER.match(text, start, end):
            yield from self._close()
            self._begin(Kind.ITEM, line, marker.end(), end, indent)
        elif text[start] == "|":
            yield from self._close()
            if not (short and _SEPARATOR_ROW.fullmatch(text, start, end)):
                self._begin(Kind.ROW, line, start, end, indent)
                yield from self._close()
        elif opened is None:
            self._begin(Kind.PARAGRAPH, line, start, end, indent)
        else:
            self._open = opened._replace(end=end)

    def _underlines(self, opened: Block, start: int, end: int) -> bool:
        """Returns whether a line makes the paragraph of one line before it a heading."""
        one_line = opened.end == start - 1 or self._text.find("\n", opened.start, start - 1) < 0
        return (
            opened.kind is Kind.PARAGRAPH
            and one_line
            and _UNDERLINE.fullmatch(self._text, start, end) is not None
        )

    def _begin(self, kind: Kind, line: int, start: int, end: int, indent: int) -> None:
        self._enter(indent)
        path = (*self._headings, *self._items)
        self._open = Block(kind, start, end, line, indent, path, self._lead(kind, indent))

    def _close(self) -> Iterator[Block]:
        if self._open is None:
            return
        block, self._open = self._open, None
        end = block.end
        while end > block.start and self._text[end - 1] in _BLANK:
            end -= 1
        block = block._replace(end=end)
        self._add(block)
        if block.kind is Kind.ITEM:
            self._items.append(_head(self._text, block))
        yield block

    def _enter(self, indent: int) -> None:
        """Leaves the items that a block with this indentation is not in."""
        # The first block is where the section says, even if its indentation was cut off.
        while self._count and self._items and _indent(self._items[-1]) >= indent:
            self._items.pop()

    def _add(self, block: Block) -> None:
        introduces = block.end > block.start and self._text[block.end - 1] == ":"
        while self._siblings and self._siblings[-1].indent >= block.indent:
            self._siblings.pop()
        self._siblings.append(
            _Sibling(block.kind, block.indent, self._count, block.lead, introduces)
        )
        self._count += 1

    def _lead(self, kind: Kind, indent: int) -> int:
        """Returns the number of the block that introduces one of a kind; -1 if there is none."""
        if kind is Kind.PARAGRAPH or not self._siblings:
            return -1
        if kind is Kind.CODE:
            before = self._siblings[-1]
            return before.lead if before.kind is Kind.CODE else before.number
        # Not what is inside the items before.
        outer = (one for one in reversed(self._siblings) if one.indent <= indent)
        sibling = next(outer, None)
        if sibling is None:
            return -1
        if sibling.kind is kind and sibling.indent == indent:
            return sibling.number if kind is Kind.ROW and sibling.lead < 0 else sibling.lead
        return sibling.number if sibling.introduces else -1

    def _heading(self, line: int, start: int, end: int, level: int) -> Block:
        self._items.clear()
        self._siblings.clear()
        while self._headings and _level(self._headings[-1]) >= level:
            self._headings.pop()
        block = Block(Kind.HEADING, start, end, line, level, tuple(self._headings))
        self._headings.append(_heading("#" * level, self._text[start:end]))
        self._count += 1
        return block

    def _code(self, line: int, end: int) -> Iterator[Block]:
        """Yields the code between the line of its opening fence and the end of its last line."""
        text = self._text
        opened = line >= 0
        line = max(0, line)
        first = text.find("\n", line, end) if opened else -1
        start = first + 1
        while end > start and text[end - 1] in f"\n{_BLANK}":
            end -= 1
        if end <= start or (opened and first < 0):
            return
        indent = _columns(text, line, line + len(text[line:start]) - len(text[line:start].lstrip()))
        self._enter(indent)
        path = (*self._headings, *self._items)
        block = Block(Kind.CODE, start, end, line, indent, path, self._lead(Kind.CODE, indent))
        self._add(block)
        yield block


def _columns(text: str, start: int, end: int) -> int:
    blank = text[start:end]
    return len(blank) + (_TAB - 1) * blank.count("\t")

"""Structured text: the small subset of Markdown that every reader of documents returns.

Blocks are separated by an empty line. Each is a heading, a paragraph of one line, a list of items,
or fenced code. What belongs to a list item is indented below it. For example:

    ## Memory

    These settings matter:

    - shared_buffers (integer): The default is 128 MB.
    - work_mem (integer):

      The default is 4 MB.

      It applies to each sort.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

# A description up to this many characters stands on the line of its term.
_SHORT_DESCRIPTION = 400
_WORD = re.compile(r"\w")
_SIGNS = re.compile(r"(?:#{1,6}(?=\s)|`{3,}|~{3,})[#`~\s]*")
_BULLETS = tuple("•·▪◦‣∙●")
_LIST_MARKER = re.compile(r"\A\s*(?:-|\d+\.) ")
_ENDS = tuple(".:;,!?")
# Between a label and its value.
LEADER = re.compile(r"(?<=[\w)]) ?(?:\.{4,}+|(?: \.){4,}+)\s++(?=\S)")
_BACKTICKS = re.compile(r"`{3,}")


class PartKind(Enum):
    """The kind of a part of a document."""

    HEADING = "heading"
    PARAGRAPH = "paragraph"
    LIST = "list"
    CODE = "code"


class Part(NamedTuple):
    """A part of a document.

    text: Without the sign of a heading and the fence of code, but with the markers of list items.
    level: That of a heading, 1 to 6. guessed: Whether a heading is not marked as one; without text
    below it, it is a paragraph. emptied: Whether what stood below a heading was left out; without
    other text below it, it is left out, too.
    """

    kind: PartKind
    text: str
    level: int = 0
    guessed: bool = False
    emptied: bool = False


def paragraph(text: str) -> Part | None:
    """Returns a paragraph; None if the text has no word.

    Lines without a word are left out, and so are signs at the beginning of a line that would make
    it a heading or a fence. "Label ..... value" becomes a list item.
    """
    kept = [_without_signs(line.strip()) for line in text.split("\n") if _WORD.search(line)]
    return Part(PartKind.PARAGRAPH, "\n".join(kept)) if kept else None


def code(text: str) -> Part | None:
    """Returns code without the empty lines around it; None if there is none."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip().split("\n")
    first = next((at for at, line in enumerate(lines) if line.strip()), None)
    return None if first is None else Part(PartKind.CODE, "\n".join(lines[first:]))


def render(parts: Sequence[Part], nested: bool = False) -> str:
    """Returns parts as structured text; nested in a list item, headings are paragraphs."""
    return "\n\n".join(_written(part, nested) for part in _settled(parts))


def item(marker: str, parts: Sequence[Part]) -> str:
    """Returns a list item: its marker, then what the item consists of."""
    parts = _settled(parts)
    if not parts:
        return ""
    first, *rest = parts
    indent = " " * len(marker)
    if first.kind is PartKind.HEADING:
        return description([first.text], rest, marker)
    if first.kind is PartKind.LIST:
        return render(parts, nested=True)
    if first.kind is PartKind.CODE:
        lines = (line.strip() for line in first.text.split("\n"))
        first = paragraph("\n".join(lines)) or first
    pieces = [marker + _indented(first.text, indent)[len(indent) :]]
    for part in rest:
        tight = part.kind is PartKind.LIST and len(pieces) == 1 and "\n\n" not in part.text
        pieces.append("\n" if tight else "\n\n")
        pieces.append(_indented(_written(part, nested=True), indent))
    return "".join(pieces)


def description(terms: Sequence[str], parts: Sequence[Part], marker: str = "- ") -> str:
    """Returns a list item with terms and their description."""
    term = ", ".join(terms).rstrip(" :")
    parts = _settled(parts)
    if not parts or not term:
        return f"{marker}{term}" if term else item(marker, parts)
    head = marker + (term if term.endswith("?") else f"{term}:")
    first, *rest = parts
    short = first.kind is PartKind.PARAGRAPH and len(first.text) <= _SHORT_DESCRIPTION
    below = _indented(render(parts, nested=True), " " * len(marker))
    return f"{head} {below.lstrip(' ')}" if short and not rest else f"{head}\n\n{below}"


def items(written: Sequence[str]) -> Part | None:
    """Returns a list of items; after an item of several blocks is an empty line."""
    text = "".join(one + ("\n\n" if "\n\n" in one else "\n") for one in written if one)
    return Part(PartKind.LIST, text.rstrip("\n")) if text else None


def one_line(parts: Sequence[Part]) -> str:
    """Returns the text of parts in one line, such as the cell of a table."""
    pieces: list[str] = []
    for part in parts:
        lines = [line for line in part.text.split("\n") if line.strip()]
        if part.kind is PartKind.LIST:
            lines = [", ".join(_LIST_MARKER.sub("", line, count=1) for line in lines)]
        written = " ".join(" ".join(lines).split())
        if pieces:
            pieces.append(" " if pieces[-1].endswith(_ENDS) else "; ")
        pieces.append(written)
    return "".join(pieces)


def _without_signs(line: str) -> str:
    signs = _SIGNS.match(line)
    if signs is not None:
        line = line[signs.end() :]
    if line.startswith(_BULLETS):
        return f"- {line[1:].lstrip()}"
    label, *values = LEADER.split(line, maxsplit=1)
    return f"- {label}: {values[0]}" if values else line


def _settled(parts: Sequence[Part]) -> list[Part]:
    """Returns parts without headings that were emptied, and guessed ones with nothing below."""
    kept: list[Part] = []
    for part in reversed(parts):
        bare = not kept or 0 < kept[-1].level <= part.level
        if bare and part.guessed:
            part = Part(PartKind.PARAGRAPH, part.text)
        if not (bare and part.emptied):
            kept.append(part)
    return kept[::-1]


def _written(part: Part, nested: bool) -> str:
    if part.kind is PartKind.CODE:
        longest = max((len(found) for found in _BACKTICKS.findall(part.text)), default=2)
        fence = "`" * (longest + 1)
        return f"{fence}\n{part.text}\n{fence}"
    if part.kind is not PartKind.HEADING:
        return part.text
    if nested:
        return part.text if part.text.endswith((":", "?", ".", "!")) else f"{part.text}:"
    return f"{'#' * part.level} {part.text}"


def _indented(text: str, indent: str) -> str:
    return "\n".join(indent + line if line else line for line in text.split("\n"))

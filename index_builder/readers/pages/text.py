"""The text of a paginated document: its lines to structured text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from index_builder.readers.pages.blocks import END, NUMBER, Block, Blocks, Kind
from index_builder.readers.pages.furniture import body_lines, is_contents
from index_builder.readers.pages.headings import BULLET, Bookmark, heading_keys
from index_builder.readers.pages.layout import Line
from index_builder.readers.pages.tables import is_caption
from index_builder.readers.structured_text import (
    Part,
    PartKind,
    code,
    description,
    item,
    items,
    render,
)

_INDENT = 0.8
_DEEPER = 1.2
_MAX_TERM = 100
_MAX_TERM_LINES = 4
_MAX_TERM_WORDS = 6
_SIGNS = re.compile(r"^(?:#{1,6} |`{3,}|~{3,})", re.MULTILINE)
_CONTINUED = "˓→"  # Sphinx marks lines of code that it had to break.


def write_text(lines: Sequence[Line], bookmarks: Sequence[Bookmark], title: str) -> tuple[str, str]:
    """Returns the title and the structured text of a document from the lines of all pages.

    If its properties have no title, the largest heading of the first page takes its place.
    """
    body = body_lines(lines)
    if not body:
        return title, title or lines[0].text
    blocks = Blocks(body, bookmarks).read()
    page = blocks[0].lines[0].page
    largest = max(
        (one for one in blocks if one.kind is Kind.HEADING and one.lines[0].page == page),
        key=lambda one: one.size,
        default=None,
    )
    if largest is not None and not title:
        title = " ".join(largest.texts)
    if largest is not None and heading_keys(" ".join(largest.texts)) & heading_keys(title):
        blocks.remove(largest)
    text = render(_parts(blocks)) if blocks else title
    return title, text or title


def _parts(blocks: Sequence[Block]) -> list[Part]:
    """Returns blocks as parts; what is indented below an item or a term belongs to it."""
    parts: list[Part | None] = []
    written: list[str] = []
    at = 0
    while at < len(blocks):
        block = blocks[at]
        end = at + 1
        if block.kind is Kind.ITEM or _is_term(block, blocks[end : end + 1]):
            while end < len(blocks) and _is_below(blocks[end], block):
                end += 1
            children = _parts(blocks[at + 1 : end])
            written.append(_entry(block, children))
            at = end
            continue
        parts.append(items(written))
        written = []
        if block.kind is Kind.HEADING:
            text = " ".join(block.texts)
            after = blocks[end] if end < len(blocks) else None
            bare = after is None or after.kind is Kind.HEADING
            if not (bare and is_contents(text)):
                parts.append(Part(PartKind.HEADING, text, block.level))
        elif block.kind is Kind.CODE:
            parts.append(code(_code_text(block.lines)))
        elif block.kind is Kind.TABLE:
            parts += block.part
        else:
            text = "\n".join(block.texts)
            before_table = end < len(blocks) and blocks[end].kind is Kind.TABLE
            caption = before_table and is_caption(text) and not text.endswith(END)
            parts.append(_paragraph(f"{text}:" if caption else text))
        at = end
    return [part for part in [*parts, items(written)] if part is not None]


def _entry(block: Block, children: Sequence[Part]) -> str:
    text = "\n".join(block.texts)
    if block.kind is not Kind.ITEM:
        terms = block.texts or [line.text for line in block.lines]
        if terms[0].isdigit() and len(terms[0]) < 4:
            return item(f"{terms[0]}. ", children)
        return description(terms, children)
    number, bullet, marker = NUMBER.match(text), BULLET.match(text), "- "
    if number is not None and number[1].strip("(.)").isdigit():
        bullet, marker = number, f"{number[1].strip('(.)')}. "
    first = _paragraph(text[bullet.end() if bullet else 0 :])
    return item(marker, [first, *children])


def _paragraph(text: str) -> Part:
    return Part(PartKind.PARAGRAPH, _SIGNS.sub("", text))


def _is_term(block: Block, after: Sequence[Block]) -> bool:
    """Returns whether a block is a term, with its description indented below it."""
    if block.kind is Kind.CODE:
        single = max(line.offset for line in block.lines) - block.left < block.size
    else:
        single = block.kind is Kind.TEXT and len(block.lines) == len(block.texts)
    if not single or len(block.lines) > _MAX_TERM_LINES or not after:
        return False
    if after[0].kind is Kind.TABLE:
        return False
    last = block.lines[-1]
    if len(last.text) > _MAX_TERM or last.text.endswith((".", ":", ";", ",")):
        return False
    marked = last.bold or any(font.mono for font in last.fonts)
    if not marked and (after[0].kind is Kind.CODE or len(last.text.split()) > _MAX_TERM_WORDS):
        return False
    return _is_below(after[0], block) and after[0].lines[0].page <= block.lines[-1].page + 1


def _is_below(block: Block, above: Block) -> bool:
    if block.kind is Kind.HEADING:
        return False
    return block.left > above.left + (_INDENT if above.kind is Kind.ITEM else _DEEPER) * above.size


def _code_text(lines: Sequence[Line]) -> str:
    """Returns lines with their indentation, and empty lines where gaps are wide."""
    widths = [(cell.right - cell.left) / len(cell.text) for line in lines for cell in line.cells]
    width = median(widths) or 1.0
    edge = min(line.offset for line in lines)
    written: list[str] = []
    for before, line in pairwise([lines[0], *lines]):
        text = ""
        for cell in line.cells:
            start = round((cell.left - line.column.left - edge) / width)
            text += " " * max(start - len(text), 1 if text else 0) + cell.text
        if before.column is line.column and before.base - line.base > 1.8 * line.size:
            written.append("")
        if text.lstrip().startswith(_CONTINUED) and written:
            written[-1] += " " + text.lstrip()[len(_CONTINUED) :].lstrip()
        else:
            written.append(text)
    return "\n".join(written)

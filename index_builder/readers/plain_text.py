"""Plain text as HTML, by the structure that its lines show."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape

from index_builder.readers.structured_text import LEADER
from index_builder.readers.table_rows import is_header

# In a text that is wrapped, the next word would not have fitted into most lines.
_MIN_WIDTH, _MAX_BREAKS, _RAGGED = 45, 0.25, 8
_MAX_HEADING, _MAX_LEAD, _MAX_TABLE_WIDTH, _MAX_SHIFT = 80, 60, 400, 10
_MIN_CAPITALS = 4
_MAX_LINES, _MAX_VIEW = 1_000, 20
_UNDERLINE = re.compile(r"={3,}|-{3,}|~{3,}|\*{3,}|_{3,}")
_SIGNED = re.compile(r"(#{1,6}) +(\S.*)")
_RULE = re.compile(r"[\s=*_~#.+-]{3,}")
_DASHES = re.compile(r"[\s=+|-]{3,}")
_ITEM = re.compile(
    r"([ \t]*)(?:[*•–+-]|o(?=\s{2,4}\w)|(?<=[ \t])o(?= \w)|\(?(\d{1,3}|[a-z])[.)])\s+(?=\S)"
)
_LETTER_DOT = re.compile(r"\s*[a-z]\.")
_SECTION = re.compile(r"(\d{1,2}(?:\.\d{1,2}){0,4})\.?\s+(?=[^\W\d_a-z])")
_KEY = re.compile(r"[^\W\d_][\w ()/.&'-]{0,39}:\s+\S")
# A question, or an answer, begins a block.
_TURN = re.compile(r"(?:Q|A|Question|Answer|Frage|Antwort)\s?\d{0,3}\s?:\s")
_CONTENTS = re.compile(r"(?:table of )?contents:?|inhalt(?:sverzeichnis)?:?", re.IGNORECASE)
_CONTENTS_LINE = re.compile(r".{1,200}?(?:\.[ .]{3,200}|\s{4,200})([\divxlc]{1,5})")
# Between the cells of a row; two spaces after the end of a sentence are none.
_GAP = re.compile(r"(?<=[^\s.:!?]) {2,}+(?=\S)|(?<=\S) {3,}+(?=\S)")
_WIDE_GAP = re.compile(r"\S(?: {3,}|\t)\S")
_CODE = re.compile(r"[{}<>;=$\\|#]|\w\(")
_WORDS = re.compile(r"[^\W\d_]{2,}")


def plain_text_to_html(text: str) -> str:
    """Returns plain text as HTML: headings, lists, tables, paragraphs and text to keep as it is."""
    blocks = list(_blocks(text.replace("\f", "\n\n").replace("\u00a0", " ")))
    converter = _Converter()
    for block, after in itertools.pairwise([*blocks, []]):
        converter.read(block, after)
    return converter.html()


def _blocks(text: str) -> Iterator[list[str]]:
    """Yields the lines between empty lines, without contents."""
    block: list[str] = []
    # What contents have listed first; None outside of contents.
    listed: str | None = None
    for line in [*text.split("\n"), "", ""]:
        if line.strip() and len(block) < _MAX_LINES and not (block and _TURN.match(line)):
            block.append(line.rstrip())
            continue
        if block and _CONTENTS.fullmatch(block[0].strip()):
            listed, block = "", block[1:]
        if block:
            first = block[0].strip()
            numbered = all(_SECTION.match(line.strip()) for line in block)
            if listed is not None and numbered and first != listed:
                listed = listed or first
            else:
                listed = None
                if not _lists_pages(block):
                    yield block
        block = [line.rstrip()] if line.strip() else []


def _lists_pages(block: Sequence[str]) -> bool:
    """Returns whether a block is contents, with page numbers that grow; prices do not."""
    found = [match for line in block if (match := _CONTENTS_LINE.fullmatch(line)) is not None]
    pages = [int(match[1]) for match in found if match[1].isdecimal()]
    return len(found) > 2 and len(found) * 2 > len(block) and pages == sorted(pages)


def _table(block: Sequence[str]) -> tuple[int, int, str] | None:
    """Returns where a table begins and ends among the lines of a block, and the table as HTML.

    Its cells are below each other, or it has leaders, such as "Label ..... 5".
    """
    if max(map(len, block)) > _MAX_TABLE_WIDTH:
        return None
    block = [line.expandtabs() for line in block]
    lines = [LEADER.sub(lambda found: " " * len(found[0]), line, count=1) for line in block]
    led = [at for at, line in enumerate(lines) if line != block[at]]
    wide = [at for at, line in enumerate(lines) if _GAP.search(line)]
    wide = [at for at in wide if not led or at >= led[0]]
    if len(wide) < (1 if led else 2) or any(line[:2] in ("$ ", "> ") for line in block):
        return None
    start, end = wide[0], wide[-1] + 1
    if _SECTION.match(lines[start].strip()):
        return None
    rules = [at for at in range(start, end) if _is_dashed(lines[at])]
    body = [lines[at] for at in range(start, end) if at not in rules]
    is_headed = rules[:1] == [start + 1]
    if len(led) * 2 > len(body):
        rows = [_GAP.split(line.strip(), maxsplit=1) for line in body]
    else:
        starts = _columns_of(body)
        while len(starts) > 1 and end < len(lines) and _indent(lines[end]) >= starts[-1] > 0:
            body.append(lines[end])
            end += 1
        full = sum(_GAP.search(line) is not None for line in body)
        code = sum(_CODE.search(line) is not None for line in body)
        if len(starts) < 2 or full * 2 < len(body) or (code * 3 > len(body) and not is_headed):
            return None
        rows = []
        for line in body:
            row = _row(line, starts)
            if rows and not row[0] and sum(map(bool, row)) == 1:
                rows[-1] = [
                    f"{one} {more}".strip() for one, more in zip(rows[-1], row, strict=True)
                ]
            else:
                rows.append(row)
        if len(rows) < 2 + is_headed:
            return None
        is_headed = is_headed or (len(starts) > 2 and is_header(rows))
    html = "".join(
        "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row)
        for row, tag in zip(rows, ["th" if is_headed else "td"] + ["td"] * len(rows), strict=False)
    )
    return start, end, f"<table>{html}</table>"


def _is_dashed(line: str) -> bool:
    return _DASHES.fullmatch(line) is not None and ("--" in line or "==" in line)


def _columns_of(lines: Sequence[str]) -> list[int]:
    """Returns where the columns of lines begin: after two spaces in those with most cells."""
    cells = [len(_GAP.split(line)) for line in lines]
    counts = Counter(count for count in cells if count > 1)
    usual = max(counts, key=lambda count: (counts[count], count))
    rows = [line for line, count in zip(lines, cells, strict=True) if count == usual]
    filled = {at for line in rows for at, sign in enumerate(line) if sign != " "}
    return [at for at in sorted(filled) if filled.isdisjoint((at - 1, at - 2))]


def _row(line: str, starts: Sequence[int]) -> list[str]:
    """Returns the cells of a line by the columns above or below which they begin."""
    cells = [""] * len(starts)
    places = {at for at in starts[1:] if line[at - 1 : at] == " " != line[at : at + 1]}
    bounds = sorted({0, *places, *(gap.end() for gap in _GAP.finditer(line))})
    for one, next_ in itertools.pairwise([*bounds, len(line)]):
        text = line[one:next_].strip()
        middle = one + min(len(text), _MAX_SHIFT) / 2
        column = sum(start <= middle for start in starts[1:])
        cells[column] = f"{cells[column]} {text}".strip()
    return cells


class _Converter:
    def __init__(self) -> None:
        self._html: list[str] = []
        # The indentation and tag of each open list.
        self._lists: list[tuple[int, str]] = []

    def html(self) -> str:
        """Returns the HTML of the blocks read."""
        self._end_lists(-1)
        return "".join(self._html)

    def read(self, block: list[str], after: Sequence[str]) -> None:
        """Reads a block, with the one after it in view."""
        while block and (heading := self._heading(block, after)):
            block = block[heading:]
        if not block or all(_RULE.fullmatch(line) for line in block):
            return
        items = _item_lines(block)
        inside = bool(self._lists) and _indent(block[0]) > self._lists[0][0]
        if items and items[0] <= 1:
            self._lead(block[: items[0]])
            self._items(block[items[0] :])
            return
        self._end_lists(_indent(block[0]) - 1 if inside else -1)
        if (table := _table(block)) is None:
            return self._unlisted(block)
        start, end, html = table
        if start == 1:
            self._lead(block[:1])
        elif start:
            self.read(block[:start], block[start:])
        self._html.append(html)
        if end < len(block):
            self.read(textwrap.dedent("\n".join(block[end:])).split("\n"), after)
        return None

    def _unlisted(self, block: list[str]) -> None:
        keys = [number for number, line in enumerate(block) if _KEY.match(line)]
        if _describes(block):
            term, description = escape(block[0].strip()), escape(" ".join(block[1:]))
            self._html.append(f"<dl><dt>{term}<dd>{description}</dl>")
        elif _is_aligned(block) or (min(map(_indent, block)) >= 4 and not _is_prose(block)):
            self._html.append(f"<pre>{escape(textwrap.dedent(chr(10).join(block)))}</pre>")
        elif len(keys) > 1 and keys[0] <= 1 and len(keys) >= len(block) - 1:
            self._lead(block[: keys[0]])
            entries = _joined(block[keys[0] :], {number - keys[0] for number in keys})
            self._html.append("<ul>" + "".join(f"<li>{escape(one)}" for one in entries) + "</ul>")
        else:
            self._html.append(_paragraph(block))

    def _heading(self, block: list[str], after: Sequence[str]) -> int:
        """Writes the heading that a block begins with; returns the number of its lines."""
        line, lines = block[0].strip(), 1
        if _GAP.search(line) and (table := _table(block[:_MAX_VIEW])) and not table[0]:
            return 0
        if (signed := _SIGNED.fullmatch(line)) is not None:
            self._write_heading(len(signed[1]), signed[2])
            return 1
        if _UNDERLINE.fullmatch(line) and len(block) > 2 and block[2].strip() == line:
            # A line above, too.
            line, block, lines = block[1].strip(), block[1:], 2
        if not line[0].isalnum() or len(line) > _MAX_HEADING:
            return 0
        underline = block[1].strip() if len(block) > 1 else ""
        level = 0
        if _UNDERLINE.fullmatch(underline) and len(underline) >= len(line) - 3:
            level, lines = (2 if underline[0] in "=*" else 3), lines + 1
            if found := _SECTION.match(line):
                level = 2 + found[1].count(".")
        elif line.isupper() and sum(map(str.isalpha, line)) >= _MIN_CAPITALS:
            level = 0 if len(block) > 1 and block[1].isupper() else 2
        elif (found := _SECTION.match(line)) and line[-1] not in ".;,:":
            alone = len(block) == 1 and not (after and _SECTION.match(after[0]))
            follows = len(block) == 1 or len(block[1]) > len(line)
            level = 2 + found[1].count(".") if follows and (alone or "." in found[1]) else 0
        elif len(block) == 1 and _could_be_heading(line, after) and not self._lists:
            self._html.append(f"<p><b>{escape(line)}</b></p>")
            return 1
        if level:
            self._write_heading(level, line)
        return lines if level else 0

    def _write_heading(self, level: int, text: str) -> None:
        self._end_lists(-1)
        # The first level is the title of the document.
        level = min(max(level, 2), 6)
        self._html.append(f"<h{level}>{escape(text)}</h{level}>")

    def _lead(self, lines: list[str]) -> None:
        """Writes the line that introduces a list."""
        if lines:
            self._end_lists(-1)
            colon = "" if lines[0].rstrip().endswith((":", ".", "?", "!")) else ":"
            self._html.append(f"<p>{escape(lines[0].strip())}{colon}</p>")

    def _items(self, block: list[str]) -> None:
        starts = set(_item_lines(block))
        for one in _joined(block, starts, strip=False):
            found = _ITEM.match(one)
            if found is None:
                continue
            indent, number = _indent(one), found[2]
            self._end_lists(indent)
            tag = "ol" if number else "ul"
            if self._lists and self._lists[-1][0] == indent and self._lists[-1][1] != tag:
                self._end_lists(indent - 1)
            if not self._lists or self._lists[-1][0] < indent:
                self._lists.append((indent, tag))
                self._html.append(f"<{tag}>")
            value = f' value="{number}"' if number and number.isdecimal() else ""
            self._html.append(f"<li{value}>{escape(one[found.end() :])}")

    def _end_lists(self, indent: int) -> None:
        """Ends the lists that are indented further."""
        while self._lists and self._lists[-1][0] > indent:
            self._html.append(f"</{self._lists.pop()[1]}>")


def _item_lines(block: Sequence[str]) -> list[int]:
    """Returns the numbers of the lines that begin an item of a list."""
    found = [number for number, line in enumerate(block) if _ITEM.match(line)]
    return [] if len(found) == 1 and _LETTER_DOT.match(block[found[0]]) else found


def _joined(block: Sequence[str], starts: set[int], strip: bool = True) -> list[str]:
    """Returns the lines that begin something, each with the lines after it."""
    joined: list[list[str]] = []
    for number, line in enumerate(block):
        if number in starts or not joined:
            joined.append([line.strip() if strip else line])
        else:
            joined[-1].append(line.strip())
    return [" ".join(lines) for lines in joined]


def _paragraph(block: Sequence[str]) -> str:
    lines = [escape(line.strip()) for line in block if not _RULE.fullmatch(line)]
    joined = _is_wrapped(block) or _TURN.match(block[0])
    return f"<p>{(' ' if joined else '<br>').join(lines)}</p>"


def _is_wrapped(block: Sequence[str]) -> bool:
    """Returns whether lines end where the next word would not have fitted."""
    width = max(map(len, block))
    breaks = sum(
        len(line) + 1 + len(after.split(None, 1)[0]) <= width - _RAGGED * (line[-1] not in ".!?:")
        for line, after in itertools.pairwise(block)
    )
    return width >= _MIN_WIDTH and breaks <= _MAX_BREAKS * (len(block) - 1)


def _is_aligned(block: Sequence[str]) -> bool:
    """Returns whether lines have to stay as they are."""
    gaps = sum(_WIDE_GAP.search(line.strip()) is not None for line in block)
    return len(block) > 1 and gaps * 2 >= len(block)


def _describes(block: Sequence[str]) -> bool:
    """Returns whether a line is a term, and all others describe it, further to the right."""
    further = all(_indent(line) >= _indent(block[0]) + 2 for line in block[1:])
    short = len(block[0].strip()) <= _MAX_LEAD and block[0][-1] not in ".!?:;,"
    return len(block) > 1 and further and short and _is_prose(block)


def _is_prose(block: Sequence[str]) -> bool:
    letters = sum(len(word) for line in block for word in _WORDS.findall(line))
    characters = sum(len(line.strip()) for line in block)
    return letters > 0.7 * characters and block[-1].rstrip()[-1] in ".!?:;,)"


def _could_be_heading(line: str, after: Sequence[str]) -> bool:
    if not after or len(line) > _MAX_LEAD or not line[0].isupper() or _KEY.match(line):
        return False
    if line[-1] in ".!;,:":
        return False
    return line[-1] == "?" or len(after[0].strip()) > len(line) or _is_aligned(after)


def _indent(line: str) -> int:
    return len(line[: len(line) - len(line.lstrip())].expandtabs())

"""AsciiDoc as HTML: the markup of manuals, without includes and conditions."""

from __future__ import annotations

import re
from html import escape

# A text with at least this many different signs of AsciiDoc is AsciiDoc.
_MIN_SIGNS = 2
_SIGNS = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        r"^\[\[[\w.-]{1,80}\]\]$",
        r"^\[(?:verse|horizontal|NOTE|TIP|WARNING|source)\b[^\n\]]{0,80}\]$",
        r"\blink(?:git)?:[\w./-]{1,80}\[",
        r"^(?:include|ifdef|ifndef|endif)::",
        # A term, but no directive and no "Example::" of reStructuredText.
        r"^(?!\.\. |[A-Z])[^\n:\s][^\n:]{0,200}::$",
        r"^\+$",
    )
)
_SIGN_CHARACTERS = 1 << 16
_UNDERLINES = "=-~^+"
_HEADING = re.compile(r"(={1,6}) +(\S.*?)(?: =+)?")
_ATTRIBUTE = re.compile(r":!?([\w-]+)!?:(?: +(.*))?")
_DIRECTIVE = re.compile(r"(?:include|ifdef|ifndef|ifeval|endif)::.*|\[\[[^\]]*\]\]|'''|<<<|//.*")
_STYLE = re.compile(r"\[([^\]]*)\]")
_CAPTION = re.compile(r"\.([^\s.].*)")
_DELIMITER = re.compile(r"(-{4,}|\.{4,}|={4,}|\*{4,}|_{4,}|/{4,}|\+{4,}|```\w*|--|\|===)")
_ITEM = re.compile(r"[ \t]*(\*{1,5}|-|\.{1,5}|\d+\.|[a-z]\.|<\d+>)[ \t]+(\S.*)")
_TERM = re.compile(r"[ \t]*(\S.*?)(:{2,4}|;;)(?:[ \t]+(\S.*))?")
_NOTE = re.compile(r"(NOTE|TIP|WARNING|IMPORTANT|CAUTION): +(.*)")
_ENTITIES = {
    **dict(asterisk="*", plus="+", caret="^", startsb="[", endsb="]", tilde="~", apostrophe="'"),
    **dict(nbsp=" ", litdd="--", zwsp="", empty="", sp=" ", lt="<", gt=">", amp="&", backtick="`"),
}
_INLINE = tuple(
    (re.compile(pattern), to)
    for pattern, to in (
        (r"\blinkgit:([\w.-]+)\[(\d)\]", r"\1(\2)"),
        (r"\b(?:link|xref|mailto):[^\s\[\]]{1,300}\[([^\]\n]{1,500})\]", r"\1"),
        (r"(https?://[^\s\[\]<>]{1,500})\[\]", r"\1"),
        (r"https?://[^\s\[\]<>]{1,500}\[([^\]\n]{1,500})\]", r"\1"),
        (r"<<[^,>\n]{1,100},([^>\n]{1,200})>>", r"\1"),
        (r"<<#?([^,>\n]{1,100})>>", r"\1"),
        (r"\[\[[^\]\n]{1,100}\]\]", ""),
        (r"\bfootnote:\[([^\]\n]{1,500})\]", r" (\1)"),
        (r"\b(?:kbd|btn|pass|menu|stem|image|icon):[^\s\[\]]{0,200}\[([^\]\n]{0,500})\]", r"\1"),
        (r"\+\+\+?(\S(?:[^+\n]*\S)?)\+\+\+?|\$\$([^$\n]{1,500})\$\$", r"\1\2"),
        (r"`\+([^`\n]+)\+`|``([^`\n]+)''|``([^`\n]+)``", r"\1\2\3"),
        (r"`([^`\n]+)`", r"\1"),
        (r"(?<![\w'])'(?=[^\s'])([^'\n]{1,200})(?<=\S)'(?![\w'])", r"\1"),
        (r"(?<![\w*])\*{1,2}(?=[^\s*])([^*\n]{1,300})(?<=\S)\*{1,2}(?![\w*])", r"\1"),
        (r"(?<![\w_])_{1,2}(?=[^\s_])([^_\n]{1,300})(?<=\S)_{1,2}(?![\w_])", r"\1"),
        (r"(?<![\w+])\+(?=[^\s+])([^+\n]{1,200})(?<=\S)\+(?![\w+])", r"\1"),
        (r"(?<=\s)--(?=\s)", "—"),
        (r"\\(?=[\w`'*_+{<\[-])", ""),
    )
)
_PLACEHOLDER = re.compile(r"\{([\w-]{1,40})\}")


def is_asciidoc(text: str) -> bool:
    """Returns whether a text shows the signs of AsciiDoc."""
    beginning = text[:_SIGN_CHARACTERS]
    return sum(sign.search(beginning) is not None for sign in _SIGNS) >= _MIN_SIGNS


def asciidoc_to_html(text: str) -> str:
    """Returns AsciiDoc as HTML, without the files that it includes."""
    converter = _Converter()
    for line in text.split("\n"):
        converter.read(line.rstrip())
    return converter.html()


class _Converter:
    """Reads lines and writes HTML; open lists and blocks are a stack of what closes them."""

    def __init__(self) -> None:
        self._html: list[str] = []
        # What ends each list, item and block, with the marker of lists and the sign of blocks.
        self._open: list[tuple[str, str]] = []
        self._lines: list[str] = []
        self._verbatim = ""
        self._attributes = dict(_ENTITIES)
        self._style = ""
        # Whether the next block belongs to the open item, and the next table has a header.
        self._attached = self._has_header = False
        self._blank = True
        # Whether a term has no text yet, and whether the lines are those of an item.
        self._awaits_text = self._in_item = False

    def html(self) -> str:
        """Returns the HTML of the lines read."""
        self._end_paragraph()
        if self._verbatim:
            self._end_verbatim()
        self._close(0)
        return "".join(self._html)

    def read(self, line: str) -> None:
        """Reads a line."""
        if self._verbatim:
            if line == self._verbatim:
                self._end_verbatim()
            else:
                self._lines.append(line)
        elif not line:
            self._end_paragraph()
            self._blank = True
        elif line == "+" and self._open:
            self._end_paragraph()
            self._attached = True
        elif self._lines and self._is_underline(line):
            self._heading(_UNDERLINES.index(line[0]) + 1, self._lines.pop())
        elif not self._read_block(line):
            self._read_text(line)

    def _is_underline(self, line: str) -> bool:
        same = line[0] in _UNDERLINES and not line.strip(line[0]) and len(line) > 2
        alone = len(self._lines) == 1 and not self._in_item and self._lines[0][0].isalnum()
        return same and alone and abs(len(line) - len(self._lines[0])) <= 3

    def _read_block(self, line: str) -> bool:
        """Reads a line that is not text; returns whether it is one."""
        if found := _DELIMITER.fullmatch(line):
            self._delimit(found[1])
        elif _DIRECTIVE.fullmatch(line):
            pass
        elif self._lines:
            return False
        elif found := _HEADING.fullmatch(line):
            self._heading(len(found[1]), found[2])
        elif found := _ATTRIBUTE.fullmatch(line):
            self._attributes[found[1]] = found[2] or ""
        elif found := _STYLE.fullmatch(line):
            self._style = found[1].split(",")[0].lower()
            self._has_header |= "header" in found[1]
        elif found := _CAPTION.fullmatch(line):
            self._begin_block()
            self._html.append(f'<p class="title">{self._inline(found[1])}</p>')
            self._attached = True
        else:
            return False
        return True

    def _read_text(self, line: str) -> None:
        awaits_text, self._awaits_text = self._awaits_text, False
        in_verse = self._style == "verse" and not awaits_text
        self._in_item = self._in_item and bool(self._lines)
        item = None if in_verse else _ITEM.fullmatch(line)
        term = None if in_verse or item else _TERM.fullmatch(line)
        if item is not None and (not self._lines or self._open):
            marker = item[1] if item[1][0] in "*-." else item[1][-1]
            tag = "ul" if marker[0] in "*-" else "ol"
            self._begin_item(marker, tag, "<li>", "</li>")
            self._lines.append(item[2])
            self._in_item = True
        elif term is not None and (not self._lines or self._open):
            self._begin_item(term[2], "dl", f"<dt>{self._inline(term[1])}</dt><dd>", "</dd>")
            self._in_item = bool(term[3])
            if term[3]:
                self._lines.append(term[3])
            else:
                self._awaits_text = True
        elif not self._lines and line[0] in " \t" and not awaits_text:
            self._begin_block(literal=True)
            self._lines.append(line)
            self._style = "literal"
        else:
            if not self._lines and not awaits_text:
                self._begin_block()
            self._lines.append(line if self._style in ("verse", "literal") else line.strip())
        self._attached = self._blank = False

    def _begin_block(self, literal: bool = False) -> None:
        """Begins a block: after an empty line, it is in a list only if it is attached to it."""
        if self._blank and not self._attached and not literal:
            self._close(self._depth())
        self._attached = self._blank = False

    def _depth(self) -> int:
        """Returns the number of what is open up to the innermost block."""
        blocks = (at for at, (_, kind) in enumerate(self._open, 1) if kind.startswith("block"))
        return max(blocks, default=0)

    def _begin_item(self, marker: str, tag: str, opening: str, closing: str) -> None:
        self._end_paragraph()
        kinds = [kind for _, kind in self._open]
        if marker in kinds[self._depth() :]:
            self._close(kinds.index(marker, self._depth()) + 1)
        else:
            self._html.append(f"<{tag}>")
            self._open.append((f"</{tag}>", marker))
        self._html.append(opening)
        self._open.append((closing, "item"))

    def _delimit(self, sign: str) -> None:
        self._end_paragraph()
        sign = sign[:3] if sign.startswith("```") else sign
        block = ("</div>", f"block{sign}")
        if block in self._open:
            self._close(self._open.index(block))
        elif sign[0] in "=*_" or sign == "--":
            self._begin_block()
            self._html.append("<div>")
            self._open.append(block)
        else:
            self._begin_block()
            self._verbatim = sign
        self._attached = self._blank = False

    def _end_verbatim(self) -> None:
        sign, self._verbatim, lines = self._verbatim, "", self._lines
        self._lines = []
        if sign[0] == "|":
            self._html.append(self._table(lines))
        elif sign[0] not in "/+":
            self._html.append(f"<pre>{escape(chr(10).join(lines))}</pre>")
        self._style = ""

    def _end_paragraph(self) -> None:
        lines, style = self._lines, self._style
        if not lines:
            return
        self._lines, self._style = [], ""
        if style in ("verse", "literal", "listing", "source"):
            shown = map(self._inline if style == "verse" else escape, lines)
            self._html.append(f"<pre>{chr(10).join(shown)}</pre>")
        else:
            text = " ".join(lines).replace(" + ", "\n")
            if note := _NOTE.match(text):
                self._html.append(f'<p class="admonition-title">{note[1].capitalize()}</p>')
                text = note[2]
            self._html.append(f"<p>{self._inline(text)}</p>")

    def _heading(self, level: int, text: str) -> None:
        self._end_paragraph()
        self._close(0)
        level = min(level, 6)
        self._html.append(f"<h{level}>{self._inline(text)}</h{level}>")
        self._blank, self._style = True, ""

    def _close(self, depth: int) -> None:
        while len(self._open) > depth:
            self._html.append(self._open.pop()[0])

    def _table(self, lines: list[str]) -> str:
        """Returns a table; each cell begins with a bar, and the first line has all columns."""
        rows = [
            [cell.strip() for cell in line.split("|")[1:]] for line in lines if line.startswith("|")
        ]
        width = len(rows[0]) if rows else 0
        cells = [cell for row in rows for cell in row]
        has_header = self._has_header or (len(lines) > 1 and not lines[1])
        header, self._has_header = "th" if has_header else "td", False
        html = ""
        for at in range(0, len(cells), max(width, 1)):
            tag = "td" if at else header
            row = (f"<{tag}>{self._inline(cell)}" for cell in cells[at : at + width])
            html += f"<tr>{''.join(row)}"
        return f"<table>{html}</table>"

    def _inline(self, text: str) -> str:
        """Returns text without markup, as HTML."""
        text = _PLACEHOLDER.sub(lambda found: self._attributes.get(found[1], found[0]), text)
        for pattern, to in _INLINE:
            text = pattern.sub(to, text)
        return escape(text).replace("\n", "<br>")

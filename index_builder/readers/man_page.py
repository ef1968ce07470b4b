"""Manual pages as HTML: roff with the macros of man(7) or mdoc(7)."""

from __future__ import annotations

import re
from html import escape

_ESCAPE = re.compile(
    r"\\(?:f(?:\[[^\]\n]{0,20}\]|\(..|.)|s[+-]?\d{1,2}|s\[[^\]\n]{0,9}\]|\*(?:\[([^\]\n]{1,30})\]|\((..)|(.))"
    r"|\[([^\]\n]{1,30})\]|\((..)|[nmMFY](?:\[[^\]\n]{0,30}\]|\(..|[+-]?.)|[hvwlLxbzoDX]'[^'\n]{0,80}'"
    r"|\".*|(.)|$)"
)
_GLYPHS = dict(
    pair.split("=", 1)
    for pair in "em=— en=– hy=- mi=- bu=• aq=' dq=\" lq=“ rq=” oq=‘ cq=’ Aq=' Lq=“ Rq=” co=© rg=® "
    "tm=™ Tm=™ R=® ha=^ ti=~ rs=\\ sl=/ at=@ sh=# Do=$ Eu=€ ga=` aa=´ pl=+ mu=× eq== le=≤ ge=≥ "
    "ne=≠ lt=< gt=> br=| ba=| bv=| or=| ul=_ sc=§ de=° ->=→ <-=← +-=± ^=^ ~=~ -=-".split()
)
_CHARACTERS = {"-": "-", "e": "\\", " ": " ", "~": " ", "0": " ", "t": "\t", "'": "´", "`": "`"}
_COMMENT = re.compile(r"(?:^|(?<=[^\\]))\\\".*")
_LIST_TAGS = (("-enum", "ol"), ("-bullet", "ul"), ("-dash", "ul"), ("-item", "ul"))
_FONTS = frozenset("B I R SM SB BI IB BR RB IR RI".split())
# Of mdoc(7): macros whose arguments are text, and those that enclose the rest of their line.
_TEXTS = frozenset(
    "Fl Cm Ar Ic Pa Ev Va Em Sy Li Ad An Er Fa Fn Ft In Lb Ms No Tn Ux Vt Cd Dv Mt Lk Nm Xr "
    "Sx".split()
)
_SIGNS = {"Fl": "-", "Ux": "UNIX"}
_ENCLOSURES = dict(
    pair.split("=", 1)
    for pair in "Op=[] Oo=[ Oc=] Dq=“” Do=“ Dc=” Sq=‘’ So=‘ Sc=’ Pq=() Po=( Pc=) Bq=[] Bo=[ Bc=] "
    'Brq={} Aq=<> Ql=‘’ Qq="" Qo=" Qc="'.split()
)
_PUNCTUATION = frozenset(". , : ; ) ] ? !".split())
# What ends an indented part: one that describes a term, or any other.
_ENDS = {"term": "</dd></dl>", "rs": "<p>"}
_TAB = re.compile(r"tab ?\((.)\)")
_MAX_TERM, _MAX_WORDS, _MAX_DEPTH = 200, 500, 50
_BULLETS = frozenset("• * - – — o · +".split())
_NUMBER = re.compile(r"[(\[]?(\d{1,4})[.)\]]?")


def man_page_to_html(text: str) -> str:
    """Returns a manual page as HTML, with its name and section as the title."""
    converter = _Converter()
    for line in text.replace("\\\n", "").split("\n"):
        converter.read(line)
    return converter.html()


class _Converter:
    """Reads lines and writes HTML; open lists are a stack of their tags."""

    def __init__(self) -> None:
        self._html: list[str] = []
        self._lists: list[str] = []
        self._title = self._name = ""
        # The tag of the next line of text: "dt", "h2" or "h3"; empty for a part of a paragraph.
        self._next = ""
        self._verbatim = self._in_paragraph = False
        self._skip_until = ""
        self._spaced = True
        # The place of the last paragraph in the HTML.
        self._paragraph_at = 0
        self._table: list[str] | None = None

    def html(self) -> str:
        """Returns the HTML of the lines read."""
        self._end_lists(0)
        return f"<title>{escape(self._title)}</title>{''.join(self._html)}"

    def read(self, line: str) -> None:
        """Reads a line."""
        if self._skip_until:
            if line.startswith(self._skip_until):
                self._skip_until = ""
        elif self._table is not None and not line.startswith(".TE"):
            self._table.append(line)
        elif line[:1] in (".", "'") and not line.startswith("...") and len(line) > 1:
            macro, _, rest = _COMMENT.sub("", line[1:]).lstrip().partition(" ")
            self._read_macro(macro, rest.strip())
        elif line.strip():
            self._write(_unescaped(line))
        elif self._verbatim:
            self._html.append("\n")
        else:
            self._paragraph()

    def _read_macro(self, macro: str, rest: str) -> None:
        arguments = _arguments(rest)
        text = " ".join(arguments)
        match macro:
            case "TH" | "Dt" if len(arguments) > 1:
                self._title = f"{arguments[0].lower()}({arguments[1]})"
            case "de" | "am" | "ig":
                ends = arguments[macro != "ig" :]
                self._skip_until = f".{ends[0] if ends else '.'}"
            case "SH" | "Sh" | "SS" | "Ss":
                self._end_lists(0)
                self._next = "h2" if macro.lower() == "sh" else "h3"
                if text:
                    self._write(text.capitalize() if text.isupper() else text)
            case "PP" | "P" | "LP" | "HP":
                nested = [at for at, tag in enumerate(self._lists, start=1) if tag in _ENDS]
                inside = nested[-1] if nested else 0
                if inside < len(self._lists) or self._paragraph_at < len(self._html) - 1:
                    self._end_lists(inside)
            case "TP" | "TQ":
                self._begin_list("dl")
                self._next = "dt"
            case "IP":
                self._indented(arguments)
            case "RS" | "RE":
                self._nest(macro == "RS")
            case "nf" | "EX" | "Bd" | "fi" | "EE" | "Ed" | "Dl" | "D1":
                self._set_verbatim(macro, text)
            case "br" | "sp" if self._verbatim:
                self._html.append("\n")
            case "br":
                self._html.append("<br>")
            case "sp" | "Pp":
                self._paragraph()
            case "Sm":
                self._spaced = text != "off"
                self._html.append(" " * self._spaced)
            case "TS":
                self._table = []
            case "TE":
                self._end_table()
            case "Bl" if len(self._lists) < _MAX_DEPTH:
                tag = next((tag for kind, tag in _LIST_TAGS if kind in text), "dl")
                self._lists.append(tag)
                self._html.append(f"<{tag}>")
            case "El":
                self._end_lists(max(0, len(self._lists) - 1))
            case "It" if self._lists[-1:] == ["dl"]:
                # With Xo, the term ends at Xc.
                self._html.append(f"<dt>{escape(self._mdoc(rest))} ")
                self._html.append("" if "Xo" in rest.split() else "</dt><dd>")
            case "Xc" if self._lists[-1:] == ["dl"]:
                self._html.append("</dt><dd>")
            case "It":
                self._html.append("<li>")
            case "Nd":
                self._write(f"— {text}")
            case "SY":
                self._write(text)
            case _ if macro in _FONTS and text:
                joined = len(macro) == 2 and macro not in ("SM", "SB")
                self._write(("" if joined else " ").join(arguments))
            case _ if macro in _TEXTS or macro in _ENCLOSURES or macro in ("Ns", "Ap"):
                self._write(self._mdoc(f"{macro} {rest}"))

    def _write(self, text: str) -> None:
        """Writes a line of text: a heading, a term or a part of a paragraph."""
        if self._next:
            tag, self._next = self._next, ""
            self._html.append(f"<{tag}>{escape(text)}</{tag}>" + ("<dd>" if tag == "dt" else ""))
        elif self._verbatim:
            self._html.append(f"{escape(text)}\n")
        else:
            self._html.append(escape(text) + " " * self._spaced)

    def _paragraph(self) -> None:
        self._paragraph_at = len(self._html)
        self._html.append("<p>")

    def _begin_list(self, tag: str) -> None:
        if not self._lists or self._lists[-1] != tag:
            if self._lists and self._lists[-1] not in _ENDS:
                self._end_lists(len(self._lists) - 1)
            self._lists.append(tag)
            self._html.append(f"<{tag}>")

    def _end_lists(self, depth: int) -> None:
        while len(self._lists) > depth:
            tag = self._lists.pop()
            self._html.append(_ENDS.get(tag, f"</{tag}>"))
        if self._verbatim:
            self._set_verbatim("fi", "")
        self._next = ""
        self._paragraph()

    def _nest(self, deeper: bool) -> None:
        """Begins or ends an indented part; a line alone before it is the term that it describes."""
        term = self._html[self._paragraph_at + 1 :]
        if not deeper:
            nested = [at for at, tag in enumerate(self._lists) if tag in _ENDS]
            self._end_lists(nested[-1] if nested else len(self._lists))
        elif len(self._lists) >= _MAX_DEPTH:
            self._paragraph()
        elif 0 < sum(map(len, term)) <= _MAX_TERM and not any(one.startswith("<") for one in term):
            ended = self._html[self._paragraph_at - 1] == _ENDS["term"]
            self._html[self._paragraph_at] = "<dt>" if ended else "<dl><dt>"
            if ended:
                self._html[self._paragraph_at - 1] = "</dd>"
            self._html.append("</dt><dd>")
            self._lists.append("term")
        else:
            self._lists.append("rs")
            self._paragraph()

    def _indented(self, arguments: list[str]) -> None:
        mark = arguments[0] if arguments else ""
        number = _NUMBER.fullmatch(mark)
        if not mark:
            self._paragraph()
        elif mark in _BULLETS or number:
            self._begin_list("ol" if number else "ul")
            self._html.append(f'<li value="{number[1]}">' if number else "<li>")
        else:
            self._begin_list("dl")
            self._html.append(f"<dt>{escape(mark)}</dt><dd>")

    def _set_verbatim(self, macro: str, text: str) -> None:
        if macro in ("Dl", "D1"):
            self._html.append(f"<pre>{escape(self._mdoc(text))}</pre>")
        elif macro in ("nf", "EX") or (macro == "Bd" and re.search("-(literal|unfilled)", text)):
            self._html.append("" if self._verbatim else "<pre>")
            self._verbatim = True
        else:
            self._html.append("</pre>" if self._verbatim else "")
            self._verbatim = False

    def _mdoc(self, line: str) -> str:
        """Returns the text of a line of macros with arguments."""
        words = line.split(None, _MAX_WORDS)
        if words[:1] == ["Nm"]:
            if words[1:] and words[1][0].isalnum():
                self._name = self._name or _unescaped(words[1])
            else:
                words.insert(1, self._name)
        text = closing = macro = ""
        joins = True
        for at, word in enumerate(words):
            space = "" if joins or not self._spaced else " "
            joins = False
            if word == "Xo":
                joins = not space
            elif word in ("Ns", "Ap"):
                text += "'" if word == "Ap" else ""
                joins = True
            elif word in _ENCLOSURES:
                signs = _ENCLOSURES[word]
                joins = len(signs) > 1 or word.endswith("o")
                text += (space if joins else "") + signs[0]
                closing = signs[1:] + closing
            elif word in _TEXTS:
                macro = word
                joins = word == "Fl" or (not space and word != "Ux")
                text += space + _SIGNS[word] if word in _SIGNS else ""
            elif macro == "Xr" and word.isdigit():
                text += f"({word})"
            elif word in _PUNCTUATION:
                if all(one in _PUNCTUATION for one in words[at:]):
                    text, closing = text + closing, ""
                text += word
            else:
                text += space + _unescaped(word.strip('"'))
        return text + closing

    def _end_table(self) -> None:
        """Writes a table of tbl(1): options and formats up to a full stop, then its rows."""
        separator, html = "\t", ""
        in_format, in_cell = True, False
        for line in self._table or ():
            if in_format:
                tab = _TAB.search(line)
                separator = tab[1] if tab else separator
                in_format = not line.rstrip().endswith(".")
            elif in_cell and not line.startswith("T}"):
                html += "" if line[:1] == "." else f" {escape(_unescaped(line))}"
            elif not in_cell and (line[:1] == "." or not line.strip("_= \t")):
                in_format = line.startswith(".T&")
            else:
                cells = [one.strip() for one in line.split(separator)]
                html += "" if in_cell else "<tr>"
                for cell in cells[in_cell:]:
                    html += f"<td>{'' if cell == 'T{' else escape(_unescaped(cell))}"
                in_cell = cells[-1] == "T{"
        self._table = None
        self._html.append(f"<table>{html}</table>")


def _arguments(rest: str) -> list[str]:
    """Returns the arguments of a macro; those in quotation marks may hold spaces."""
    if '"' not in rest:
        return [_unescaped(word) for word in rest.replace("\\ ", "\\~").split()]
    found = re.findall(r'"((?:[^"]|"")*)"?|(\S+)', rest.replace("\\ ", "\\~"))
    return [_unescaped((quoted or plain).replace('""', '"')) for quoted, plain in found]


def _unescaped(text: str) -> str:
    """Returns text without the escapes of roff: characters for names, and no fonts."""

    def character(found: re.Match[str]) -> str:
        name = found[1] or found[2] or found[3] or found[4] or found[5]
        if name:
            return _GLYPHS.get(name, "")
        return _CHARACTERS.get(found[6] or "", "")

    return _ESCAPE.sub(character, text) if "\\" in text else text

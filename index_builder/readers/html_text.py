"""The parts of a page, from its elements in order."""

from __future__ import annotations

import re
from collections.abc import Iterator

from index_builder.readers.html_frames import (
    FRAMES,
    LABELS,
    PAGE,
    Frame,
    ListEntry,
    cell_of,
    is_section_list,
    number_of,
    role_of,
)
from index_builder.readers.html_furniture import (
    Attributes,
    is_furniture,
    is_mark,
    is_menu,
    is_navigation,
    leads_elsewhere,
    names_of,
)
from index_builder.readers.structured_text import (
    Part,
    PartKind,
    code,
    items,
    one_line,
    paragraph,
)
from index_builder.readers.table_rows import table_parts

_NO_NAMES: frozenset[str] = frozenset()
# Lists and tables inside more others than this are plain blocks.
_MAX_FRAMES = 20
_MAX_QUESTION, _MAX_NUMBER, _MIN_ALT_WORDS = 300, 1_000_000, 3
_SKIPPED_BLOCKS = frozenset({"nav", "div", "table", "ul", "ol", "dl", "section"})
# What a paragraph calls itself that is a note.
_NOTES = frozenset("note tip warning caution important danger attention hint".split())
_SPACE = re.compile(r"[\s\u200b\ufeff]+")
_WORD = re.compile(r"\w")
_QUESTION = re.compile(r"(?:Q|Question|Frage)\s?\d{0,3}\s?[:.)]\s+(?=\S)")
_ANSWER = re.compile(r"(?:A|Answer|Antwort)\s?\d{0,3}\s?[:.)]\s+(?=\S)")
_ANSWER_INSIDE = re.compile(r"(?<=\?) (?=(?:A|Answer|Antwort)[:.] )")
_NUMBER = re.compile(r"\d{1,3}(?:\.\d{1,3}){0,3}\.? +(?=\S)")


class PageText:
    """Receives the elements and texts of a page, and makes its parts.

    Elements may be nested to any depth: nothing here calls itself, and what is in too many lists
    and tables counts as blocks. left_out: Whether contents or the like were left out.
    """

    def __init__(self) -> None:
        self.left_out = False
        self._frames = [Frame("page", "", {})]
        # Roles and names of the elements that have begun.
        self._open: list[tuple[str, frozenset[str]]] = []
        self._level = 1
        self._note = ""
        self._figures: list[str] = []
        self._code: list[str] | None = None
        self._code_depth = self._bold_depth = self._link_depth = self._articles = 0
        self._target = ""
        self._raised = False
        self._begin_paragraph()

    def _begin_paragraph(self) -> None:
        self._pieces: list[str] = []
        # What is not part of a link.
        self._outside: list[str] = []
        self._gap = ""
        self._links = self._link_start = self._bold_pieces = 0
        self._plain_begun = False

    @property
    def _frame(self) -> Frame:
        return self._frames[-1]

    def parts(self) -> list[Part]:
        """Returns the parts of the page."""
        while self._open:
            self.leave()
        self._end_paragraph()
        return self._frames[0].parts

    def enter(self, tag: str, attributes: Attributes) -> bool:
        """Begins an element; returns whether to read it, and then `leave` has to end it."""
        names = names_of(attributes)
        if is_furniture(tag, attributes, names):
            if tag in _SKIPPED_BLOCKS and not self._pieces:
                self._leave_out(tag != "nav")
            elif tag == "a" and self._gap == " " and attributes.get("href"):
                # No space stands before the mark of a footnote, once that is gone.
                self._gap = ""
            return False
        parent = self._open[-1][1] if self._open else frozenset()
        around = "code" if self._code is not None else self._frame.role
        role = role_of(tag, names, parent, around)
        if (role in FRAMES and len(self._frames) >= _MAX_FRAMES) or (
            role == "header" and self._articles
        ):
            role = "block"
        self._open.append(
            (role, names if tag in ("div", "aside", "blockquote", "td") else _NO_NAMES)
        )
        if role in FRAMES:
            self._end_paragraph()
            self._frames.append(Frame(role, tag, attributes))
        match role:
            case "block" | "row":
                self._end_paragraph()
                self._articles += tag in ("main", "article")
                if role == "row":
                    self._frame.rows.append([])
            case "code":
                self._end_paragraph()
                self._code, self._code_depth = [], len(self._open)
            case "break" if self._code is not None:
                self._code.append("\n")
            case "break":
                self._gap = "\n" if "\n" not in self._gap else "\n\n"
            case "image":
                self._figures.append(" ".join((attributes.get("alt") or "").split()))
            case "link":
                self._begin_link(attributes.get("href") or "")
            case "raised":
                self._raised = True
            case "bold":
                self._bold_depth += 1
            case "cell" if "col-first" in names or not self._frames[-2].rows:
                self._frames[-2].rows.append([])
            case "list":
                self._frame.number = number_of(attributes, "start", 1, _MAX_NUMBER)
        return True

    def leave(self) -> None:
        """Ends the element that began last."""
        role, _ = self._open.pop()
        match role:
            case "block" | "row":
                self._end_paragraph()
            case "code":
                written, self._code = code("".join(self._code or ())), None
                self._add(written)
            case "line" if self._code is not None:
                self._code.append("\n")
            case "link":
                self._end_link()
            case "raised":
                self._raised = self._link_depth > 0
            case "bold":
                self._bold_depth -= 1
        if role in FRAMES:
            self._end_paragraph()
            self._close(self._frames.pop())

    def write(self, text: str) -> None:
        """Adds text."""
        if self._code is not None:
            # Between elements that are a line each, white space means nothing.
            if text.strip() or self._open[-1] == ("code", _NO_NAMES) or self._open[-1][0] != "code":
                self._code.append(text)
            return
        words = _SPACE.sub(" ", text.replace("\u00ad", ""))
        if words[:1] == " ":
            self._gap = self._gap or " "
        words, ends = words.strip(), words[-1:]
        if not words:
            return
        if self._pieces:
            self._pieces.append(self._gap)
        self._pieces.append(words)
        self._gap = " " if ends == " " else ""
        if not self._link_depth or not self._target:
            self._outside.append(words)
        if self._bold_depth and not self._plain_begun:
            self._bold_pieces = len(self._pieces)
        elif _WORD.search(words):
            self._plain_begun = True

    def _begin_link(self, target: str) -> None:
        self._link_depth += 1
        self._link_start = len(self._pieces)
        self._target = target if leads_elsewhere(target) else ""
        if self._target:
            self._links += 1
            self._frame.outside |= not self._target.startswith("#")

    def _end_link(self) -> None:
        self._link_depth -= 1
        if self._target:
            text = "".join(self._pieces[self._link_start :])
            if is_mark(text, self._target, self._raised):
                del self._pieces[self._link_start :]
                self._gap = "" if text else self._gap
                self._links -= 1
                self._bold_pieces = min(self._bold_pieces, self._link_start)
        self._raised = any(role == "raised" for role, _ in self._open[-2:])

    def _end_paragraph(self) -> None:
        """Adds what has been written since the last paragraph."""
        text = "".join(self._pieces).strip()
        bold = "".join(self._pieces[: self._bold_pieces]).strip()
        links, outside, figures = self._links, " ".join(self._outside), self._figures
        self._begin_paragraph()
        self._figures = []
        frame = self._frame
        if text and frame.role in LABELS:
            line_break = ", " if frame.role == "term" else " "
            text = re.sub(r",?\n+", line_break, text)
            frame.parts.append(Part(PartKind.PARAGRAPH, text))
            frame.elsewhere &= links > 0 and not _WORD.search(outside)
        elif frame.role == "cell" and text.strip(" ,;") and not _WORD.search(text):
            # A check mark, or a dash for nothing.
            frame.parts.append(Part(PartKind.PARAGRAPH, text))
            frame.elsewhere = frame.is_bold = False
        elif text:
            frame.is_bold &= bold == text
            elsewhere = is_navigation(text, outside, links) or is_menu(text, outside, links)
            if elsewhere and frame.role in PAGE and not _introduces(frame.parts):
                self._leave_out()
            else:
                for block in text.split("\n\n"):
                    for part in self._questions(block, bold):
                        self._add(part, elsewhere or (links > 0 and not _WORD.search(outside)))
        for alt in figures:
            if len(alt.split()) >= _MIN_ALT_WORDS and frame.role not in LABELS and not links:
                self._add(paragraph(f"Figure: {alt}"))

    def _questions(self, text: str, bold: str) -> Iterator[Part | None]:
        """Yields a paragraph, or the heading or question that it is, and what follows that."""
        before = self._frame.parts[-1] if self._frame.parts else None
        if self._frame.role not in PAGE:
            yield paragraph(text)
            return
        if bold.endswith("?") and text.startswith(f"{bold} "):
            text = f"{bold}\n{text[len(bold) + 1 :]}"
        asked = _QUESTION.match(text)
        first, _, rest = (_ANSWER_INSIDE.sub("\n", text) if asked else text).partition("\n")
        label = first.rstrip(" :!").lower()
        if bold == first and label in _NOTES:
            self._note = f"{first.rstrip(' :!')}:"
            yield paragraph(rest)
        elif (asked and len(first) <= _MAX_QUESTION) or (
            bold == first
            and (first[-1] == "?" or (not rest and len(first) <= 80 and first[-1] not in ".!;,"))
        ):
            yield self._guessed(first)
            yield paragraph(_ANSWER.sub("", rest, count=1))
        else:
            if before is not None and before.kind is PartKind.HEADING:
                text = _ANSWER.sub("", text, count=1)
            yield paragraph(text)

    def _guessed(self, text: str) -> Part | None:
        text = _QUESTION.sub("", text, count=1).rstrip(" :")
        if text.endswith("?"):
            text = _NUMBER.sub("", text, count=1)
        heading = Part(PartKind.HEADING, text, min(self._level + 1, 6), guessed=True)
        return heading if _WORD.search(text) else None

    def _add(self, part: Part | None, elsewhere: bool = False) -> None:
        """Adds a part to the innermost frame."""
        frame = self._frame
        parts = frame.parts
        if frame.role in ("list", "terms") and frame.entries:
            # Text between two items belongs to the one before.
            parts = frame.entries[-1].parts
        if part is None or (parts and parts[-1] == part and part.text.startswith("Figure: ")):
            return
        frame.elsewhere &= elsewhere
        if self._note:
            if part.kind is PartKind.PARAGRAPH:
                part = part._replace(text=f"{self._note} {part.text}")
            else:
                parts.append(Part(PartKind.PARAGRAPH, self._note))
            self._note = ""
        parts.append(part)

    def _leave_out(self, listed: bool = True) -> None:
        """Notes that something was left out, such as contents, perhaps all below a heading."""
        self.left_out |= listed
        parts = self._frame.parts
        if parts and parts[-1].kind is PartKind.HEADING:
            parts[-1] = parts[-1]._replace(emptied=True)

    def _close(self, frame: Frame) -> None:
        """Adds what a frame has gathered to the one around it."""
        text = one_line(frame.parts) if frame.role in LABELS else ""
        around = self._frame
        match frame.role:
            case "heading" if _WORD.search(text):
                level = int(frame.tag[1]) if frame.tag[0] == "h" else min(self._level + 1, 6)
                if around.role in PAGE:
                    self._level = level
                self._add(Part(PartKind.HEADING, text, level))
            case "question":
                self._add(self._guessed(text))
            case "caption" if frame.tag == "figcaption" and not (
                around.parts and around.parts[-1].kind in (PartKind.LIST, PartKind.CODE)
            ):
                self._add(paragraph(f"Figure: {text}") if text else None)
            case "caption":
                self._add(paragraph(f"{text.rstrip(' :.')}:"))
            case "note":
                self._note = f"{text.rstrip(' :')}:" if _WORD.search(text) else ""
            case "header" if any(part.level == 1 for part in frame.parts):
                around.parts += frame.parts
            case "term" if text:
                if not around.entries or around.entries[-1].parts:
                    around.entries.append(ListEntry())
                around.entries[-1].terms.append(text)
                around.entries[-1].elsewhere &= frame.elsewhere
            case "description":
                if not around.entries:
                    around.entries.append(ListEntry())
                around.entries[-1].parts += frame.parts
                around.entries[-1].elsewhere = False
            case "item":
                ordered = around.tag == "ol"
                number = number_of(frame.attributes, "value", around.number, _MAX_NUMBER)
                around.number = number + 1
                marker = f"{number}. " if ordered else "- "
                around.outside |= frame.outside
                around.entries.append(ListEntry(marker, [], frame.parts, frame.elsewhere))
            case "cell":
                around.rows[-1].append(cell_of(frame))
            case "table":
                is_layout = frame.attributes.get("role") in ("presentation", "none")
                cells = [cell for row in frame.rows for cell in row]
                if frame.attributes.get("class") == "memname":
                    # How doxygen writes the head of a function.
                    return self._add(paragraph(" ".join(one_line(cell.parts) for cell in cells)))
                for part in [*frame.parts, *table_parts(frame.rows, is_layout)]:
                    self._add(part)
            case "list" | "terms":
                self._close_list(frame)

    def _close_list(self, frame: Frame) -> None:
        entries = [entry for entry in frame.entries if entry.terms or entry.parts]
        around = self._frame
        is_outer = all(one.role in PAGE | {"list", "item"} for one in self._frames)
        if is_outer and entries and all(entry.elsewhere for entry in entries):
            if not (_introduces(around.parts) and frame.outside):
                return self._leave_out()
        for part in frame.parts:
            self._add(part)
        if is_outer and is_section_list(entries):
            for entry in entries:
                for term in entry.terms:
                    self._add(self._guessed(term))
                around.parts += entry.parts
            return None
        return self._add(items([entry.written() for entry in entries]))


def _introduces(parts: list[Part]) -> bool:
    return bool(parts) and parts[-1].text.endswith(":")

"""The elements of a page by their role in its text, and what they gather."""

from __future__ import annotations

from dataclasses import dataclass, field

from index_builder.readers.html_furniture import Attributes
from index_builder.readers.structured_text import Part, PartKind, description, item
from index_builder.readers.table_rows import MAX_COLUMNS, MAX_ROWS_SPANNED, Cell

_ROLES = {
    **dict.fromkeys(
        "address article blockquote body center details dialog div fieldset figure footer form "
        "hgroup hr main p section tbody tfoot thead aside option".split(),
        "block",
    ),
    **dict.fromkeys("ul ol menu dir".split(), "list"),
    **dict.fromkeys("h1 h2 h3 h4 h5 h6".split(), "heading"),
    **dict.fromkeys("b strong".split(), "bold"),
    **dict.fromkeys("pre listing xmp".split(), "code"),
    **dict.fromkeys("caption figcaption".split(), "caption"),
    **dict.fromkeys("td th".split(), "cell"),
    **dict.fromkeys("summary legend button".split(), "question"),
    **dict(br="break", img="image", a="link", sup="raised", header="header"),
    **dict(table="table", tr="row", li="item", dl="terms", dt="term", dd="description"),
}
# Elements with these roles gather their parts; some only within another.
FRAMES = frozenset(
    "list item terms term description table cell heading caption question note header".split()
)
_WITHIN = dict(item="list", term="terms", description="terms", row="table", cell="table")
# Their parts are joined to one line.
LABELS = frozenset({"term", "heading", "caption", "question", "note"})
PAGE = frozenset({"page", "header"})
_ADMONITIONS = frozenset(
    "note tip warning caution important danger attention hint admonitionblock".split()
)
_AUTHORS = frozenset({"author", "corpauthor", "editor"})
# Tables and cells of javadoc.
_GRIDS = frozenset({"summary-table", "details-table"})
_GRID_CELLS = frozenset({"col-first", "col-second", "col-last", "col-constructor-name"})
_NOTE_TITLES = frozenset({"admonition-title", "markdown-alert-title", "topic-title"})


@dataclass(slots=True)
class ListEntry:
    """An item of a list, or terms with their description. elsewhere: Whether it is only links."""

    marker: str = "- "
    terms: list[str] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    elsewhere: bool = True

    def written(self) -> str:
        """Returns the entry as structured text."""
        if self.terms:
            return description(self.terms, self.parts)
        return item(self.marker, self.parts)


@dataclass(slots=True)
class Frame:
    """An element that gathers parts.

    entries: Those of a list. rows: Those of a table. number: Of the next item. elsewhere: Whether
    there are only links. outside: Whether one leads to another page. is_bold: Whether all is bold.
    """

    role: str
    tag: str
    attributes: Attributes
    parts: list[Part] = field(default_factory=list)
    entries: list[ListEntry] = field(default_factory=list)
    rows: list[list[Cell]] = field(default_factory=list)
    number: int = 1
    elsewhere: bool = True
    outside: bool = False
    is_bold: bool = True


def role_of(tag: str, names: frozenset[str], parent: frozenset[str], around: str) -> str:
    """Returns the role of an element with some names, in a parent with some names.

    around: The role of the innermost element around it that gathers parts, or "code".
    """
    if around == "code":
        return "break" if tag == "br" else "line" if "line" in names else "inline"
    role = _ROLES.get(tag, "inline")
    if tag in ("p", "div"):
        if "fragment" in names:
            role = "code"
        elif not names.isdisjoint(_NOTE_TITLES):
            role = "note"
        elif not names.isdisjoint(_GRIDS):
            role = "table"
        elif not names.isdisjoint(_GRID_CELLS):
            role = "cell"
        elif "rubric" in names or ("title" in names and "headertitle" in parent):
            role = "heading"
        elif "title" in names:
            role = "note" if "icon" in parent else "caption"
    elif role == "heading" and not names.isdisjoint(_AUTHORS):
        role = "block"
    elif role == "heading" and not parent.isdisjoint(_ADMONITIONS):
        role = "note"
    elif tag == "table" and ("qandaset" in names or not parent.isdisjoint(_ADMONITIONS)):
        role = "block"
    elif tag == "th" and around != "table":
        role = "note"
    elif tag == "tr" and "question" in names:
        role = "question"
    elif tag == "button" and around == "heading":
        role = "block"
    return "block" if _WITHIN.get(role, around) != around else role


def is_section_list(entries: list[ListEntry]) -> bool:
    """Returns whether the entries of a list are sections of the page, or questions with answers."""
    if entries and all(entry.terms and entry.terms[-1][-1] == "?" for entry in entries):
        return True
    headed = [
        one.parts for one in entries if not one.terms and any(part.level for part in one.parts)
    ]
    return any(
        len(parts) > 2 or not parts[0].level or parts[-1].kind is PartKind.LIST for parts in headed
    )


def cell_of(frame: Frame) -> Cell:
    """Returns the cell of a table that has gathered its parts."""
    return Cell(
        frame.parts,
        is_header=frame.tag == "th" or "table-header" in (frame.attributes.get("class") or ""),
        is_bold=frame.is_bold and bool(frame.parts),
        links_only=frame.elsewhere,
        rows=number_of(frame.attributes, "rowspan", 1, MAX_ROWS_SPANNED),
        columns=number_of(frame.attributes, "colspan", 1, MAX_COLUMNS),
    )


def number_of(attributes: Attributes, name: str, default: int, most: int) -> int:
    """Returns the number that an attribute holds, from 1 to a maximum."""
    value = attributes.get(name) or ""
    return min(max(int(value), 1), most) if value.isdecimal() and len(value) < 10 else default

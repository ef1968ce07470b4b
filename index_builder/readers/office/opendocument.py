"""OpenDocument texts as HTML, from their content.xml."""

from __future__ import annotations

from html import escape
from xml.etree.ElementTree import Element

from index_builder.readers.office.archives import Archive
from index_builder.readers.protocol import UnreadableFile

_NAMESPACE = "{urn:oasis:names:tc:opendocument:xmlns:%s:1.0}"
_TEXT, _TABLE, _OFFICE, _STYLE = (_NAMESPACE % one for one in ("text", "table", "office", "style"))
_SKIPPED = frozenset(
    {
        *(_TEXT + name for name in ("tracked-changes", "table-of-content", "sequence-decls")),
        *(_TEXT + f"{name}-index" for name in ("alphabetical", "illustration", "table", "object")),
        *(_TEXT + name for name in ("bibliography", "user-index", "note-citation")),
        *(_OFFICE + name for name in ("annotation", "forms", "scripts")),
        _TABLE + "covered-table-cell",
    }
)
_TAGS = {
    _TEXT + "list": "ul",
    _TEXT + "list-item": "li",
    _TEXT + "list-header": "li",
    _TABLE + "table": "table",
    _TABLE + "table-row": "tr",
    _TABLE + "table-cell": "td",
    _TABLE + "table-header-rows": "thead",
}
_INLINE = {_TEXT + "line-break": "<br>", _TEXT + "tab": " ", _TEXT + "s": " "}
_PARAGRAPHS = {"Title": "h1", "Preformatted_20_Text": "pre"}


def opendocument_markup(archive: Archive) -> str:
    """Returns a text as HTML."""
    if b"encryption-data" in archive.read("META-INF/manifest.xml"):
        raise UnreadableFile("encrypted with a password; remove it first")
    root = archive.xml("content.xml")
    body = root.find(f"{_OFFICE}body") if root is not None else None
    if root is None or body is None:
        raise UnreadableFile("no content in it; save or download it again")
    return _Writer(root).written(body)


class _Writer:
    def __init__(self, root: Element) -> None:
        # Styles of the document, by those of the program that they are based on.
        self._parents = {
            style.get(_STYLE + "name"): style.get(_STYLE + "parent-style-name", "")
            for style in root.iter(_STYLE + "style")
        }
        self._numbered = {
            style.get(_STYLE + "name")
            for style in root.iter(_TEXT + "list-style")
            if style.find(f"{_TEXT}list-level-style-number[@{_TEXT}level='1']") is not None
        }

    def written(self, element: Element) -> str:
        """Returns an element with its contents."""
        tag, style = element.tag, element.get(_TEXT + "style-name", "")
        if tag in _SKIPPED or tag in _INLINE:
            return _INLINE.get(tag, "")
        is_text = tag.startswith(_TEXT)
        inner = escape(element.text or "") if is_text else ""
        for child in element:
            inner += self.written(child) + (escape(child.tail or "") if is_text else "")
        if tag == _TEXT + "h":
            level = min(6, max(1, int(element.get(_TEXT + "outline-level", 1))))
            return f"<h{level}>{inner}</h{level}>"
        if tag == _TEXT + "p":
            kind = _PARAGRAPHS.get(style) or _PARAGRAPHS.get(self._parents.get(style, ""), "p")
            return f"<{kind}>{inner}</{kind}>" if inner.strip() else ""
        if tag == _TEXT + "note":
            return f" ({inner.replace('<p>', '').replace('</p>', ' ').strip()})"
        name = _TAGS.get(tag, "")
        if name == "ul" and style in self._numbered:
            name = "ol"
        spans = "".join(
            f' {side}span="{escape(element.get(f"{_TABLE}number-{kind}-spanned", "1"))}"'
            for side, kind in (("col", "columns"), ("row", "rows"))
        )
        return f"<{name}{spans}>{inner}</{name}>" if name else inner

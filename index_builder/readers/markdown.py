"""Markdown as HTML."""

from __future__ import annotations

import itertools
import re
from html import escape

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline

# A rule at the beginning of a text is none: a comment or a key follows.
_FRONT_MATTER = re.compile(r"---[ \t]*\n(?:#|[\w\"'-]+[ \t]*:)")
_FRONT_MATTER_END = re.compile(r"^(?:---|\.\.\.)[ \t]*$", re.MULTILINE)
_FRONT_MATTER_TITLE = re.compile(r"^title:[ \t]*(\S.*)$", re.MULTILINE)
_FOOTNOTE = re.compile(r"\[\^[^\]\s]{1,60}\]:?")
# How GitHub marks notes: a quotation that begins with "[!NOTE]".
_ALERT = re.compile(r"<blockquote>\n<p>\[!(\w{1,20})\][ \t]*\n?")


def markdown_to_html(text: str) -> str:
    """Returns Markdown, with tables and HTML inside, as HTML.

    The title is the first heading with text, otherwise that of the front matter.
    """
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    parser.inline.ruler.before("link", "footnote", _skip_footnote)
    title, start = "", 0
    if _FRONT_MATTER.match(text) and (end := _FRONT_MATTER_END.search(text, 4)) is not None:
        found = _FRONT_MATTER_TITLE.search(text, 0, end.start())
        title = found[1].strip().strip("\"'") if found else ""
        start = end.end()
    tokens = parser.parse(text[start:])
    for opening, content in itertools.pairwise(tokens):
        heading = "".join(child.content or " " for child in content.children or ())
        if opening.type == "heading_open" and heading.strip():
            title = heading
            break
    body = parser.renderer.render(tokens, parser.options, {})
    body = _ALERT.sub(
        lambda found: f'<p class="admonition-title">{found[1].capitalize()}</p><blockquote><p>',
        body,
    )
    return f"<title>{escape(title)}</title>{body}"


def _skip_footnote(state: StateInline, silent: bool) -> bool:
    """Skips the mark of a footnote, and the one at the beginning of its text."""
    found = _FOOTNOTE.match(state.src, state.pos)
    if found is None:
        return False
    mark = found.group()
    state.pos = found.end() - (mark.endswith(":") and state.pos > 0)
    return True

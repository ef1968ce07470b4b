"""reStructuredText as HTML, with the directives and roles of Sphinx."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.core import publish_doctree, publish_from_doctree
from docutils.parsers.rst import Directive, directives, roles
from docutils.parsers.rst.languages import en

from index_builder.readers.protocol import UnreadableFile

MAX_CHARACTERS = 4 << 20
_DIRECTIVES = re.compile(r"^[ \t]*\.\. ([\w][\w:+.-]{0,40})::", re.MULTILINE)
_ROLES = re.compile(r":([\w][\w:+.-]{0,40}):`")
_REFERENCE = re.compile(r"([^<]*[^<\s])\s*<[^<>]*>")
# Directives that generate text, or list what is elsewhere.
_WITHOUT_TEXT = frozenset(
    "toctree index contents currentmodule module py:module py:currentmodule highlight automodule "
    "autofunction autoclass autosummary sectionauthor codeauthor tabularcolumns raw include "
    "meta literalinclude default-domain".split()
)
_NOTES = {
    "versionadded": "Added in version",
    "versionchanged": "Changed in version",
    "deprecated": "Deprecated since version",
    "seealso": "See also",
}
_SETTINGS: dict[str, Any] = {
    "file_insertion_enabled": False,
    "raw_enabled": False,
    "_disable_config": True,
    "report_level": 3,
    "warning_stream": False,
    "halt_level": 5,
    "syntax_highlight": "none",
    "embed_stylesheet": False,
    "stylesheet_path": None,
    "output_encoding": "unicode",
    "smart_quotes": False,
    "toc_backlinks": False,
    "sectsubtitle_xform": False,
    "math_output": "LaTeX",
}


class _AnyOptions(dict[str, Any]):
    def __missing__(self, name: str) -> Any:
        return directives.unchanged


class _Unknown(Directive):
    """A directive that docutils does not know: its arguments are a term, its content describes."""

    has_content = True
    optional_arguments = 1
    final_argument_whitespace = True
    # An empty one would mean that there are no options.
    option_spec = _AnyOptions({"name": directives.unchanged})

    def run(self) -> list[nodes.Node]:
        if self.name.lower() in _WITHOUT_TEXT:
            return []
        body = nodes.definition()
        argument = "\n".join(self.arguments)
        note = _NOTES.get(self.name.lower())
        self.state.nested_parse(self.content, self.content_offset, body)
        if note is not None:
            version, _, more = " ".join(argument.split()).partition(" ")
            head = f"{note} {version}".strip()
            first = body.children[0] if body.children else None
            if isinstance(first, nodes.paragraph) and not more:
                first.insert(0, nodes.Text(f"{head}: "))
            else:
                body.insert(0, nodes.paragraph("", f"{head}: {more}".rstrip(": ")))
            return list(body.children)
        if not argument:
            return list(body.children)
        term = nodes.term("", argument.replace("\n", ", "))
        return [nodes.definition_list("", nodes.definition_list_item("", term, body))]


def _read_role(name: str, raw: str, text: str, *_: object) -> tuple[list[Any], list[Any]]:
    """Reads a role that docutils does not know: the text of a reference, or its target."""
    named = _REFERENCE.fullmatch(text)
    shown = named[1] if named else text.lstrip("!")
    if shown.startswith("~"):
        shown = shown[1:].rpartition(".")[2]
    return [nodes.Text(shown)], []


def restructured_text_to_html(text: str) -> str:
    """Returns reStructuredText as HTML. Nothing is read from other files.

    Raises: UnreadableFile: the text is too long or nested too deeply.
    """
    if len(text) > MAX_CHARACTERS:
        raise UnreadableFile(
            f"the text has {len(text)} characters; {MAX_CHARACTERS} are allowed: split it"
        )
    for name in {found.lower() for found in _DIRECTIVES.findall(text)}:
        if name in _WITHOUT_TEXT or name not in en.directives:
            directives.register_directive(name, _Unknown)
    for name in {found.lower() for found in _ROLES.findall(text)}.difference(en.roles):
        roles.register_local_role(name, _read_role)
    try:
        tree = publish_doctree(text, settings_overrides=_SETTINGS)
        # What could not be read, such as a table that is not aligned, stays as it is written.
        for message in list(tree.findall(nodes.system_message)):
            severe = message["level"] >= _SETTINGS["report_level"]
            literals = (node for node in message.children if isinstance(node, nodes.literal_block))
            kept = list(literals) if severe else []
            message.parent.replace(message, kept)
        return str(
            publish_from_doctree(tree, writer="html5_polyglot", settings_overrides=_SETTINGS)
        )
    except RecursionError as error:
        raise UnreadableFile("its blocks are nested too deeply; make them flatter") from error

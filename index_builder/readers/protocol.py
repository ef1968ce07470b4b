"""The results of parsing a file in the sandbox."""

from __future__ import annotations

from typing import NamedTuple


class ParsedDocument(NamedTuple):
    """The document of a file. pages: 0 if the format has no pages."""

    title: str
    text: str
    pages: int = 0


class UnreadableFile(Exception):
    """A file that cannot be read; the message gives the reason and the remedy."""

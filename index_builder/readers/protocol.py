"""What a parser makes of a file, and how it is asked: one JSON object a line, both ways."""

from __future__ import annotations

from typing import NamedTuple


class ParsedDocument(NamedTuple):
    """The document of a file. pages: 0 where it has none."""

    title: str
    text: str
    pages: int = 0


class UnreadableFile(Exception):
    """Why a file gives no document, and what to do about it."""

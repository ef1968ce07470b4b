"""The results of parsing a file in the sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class ParsedDocument(NamedTuple):
    """The document of a file. pages: 0 if the format has no pages."""

    title: str
    text: str
    pages: int = 0


class UnreadableFile(Exception):
    """A file that cannot be read; the message gives the reason and the remedy.

    line: The line with the problem, from 1; 0 if it is the whole file.
    """

    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message)
        self.line = line


def check_size(path: Path, most: int) -> None:
    """Raises UnreadableFile if a file has more bytes than a reader takes."""
    size = path.stat().st_size
    if size > most:
        raise UnreadableFile(f"the file has {size} bytes; {most} are allowed: split it")

"""Reads the documents of files in the queue: one per file, or one per row."""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from index_builder.documents.bad_rows import BadRow, BadRows
from index_builder.documents.detected_lists import DetectedLists
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.sandbox import SandboxReader
from nearline.contract import IngestSource, Item, SourceUrl
from nearline.errors import InvalidRequest

_DEFAULT_COLUMNS = DocumentColumns()


class FileDocument(NamedTuple):
    """A document of a file.

    source: The document, or its place in the file if it is invalid.
    error: Why it is invalid; empty if it is valid.
    """

    source: IngestSource
    error: str = ""


def read_documents(
    path: Path,
    name: str,
    sandbox: SandboxReader,
    columns: DocumentColumns = _DEFAULT_COLUMNS,
    lists: DetectedLists | None = None,
) -> Generator[FileDocument]:
    """Yields every document of a file in order, including malformed rows.

    The same file always yields the same documents in the same order.

    Args:
        path: The file; its suffix determines its format.
        name: Its name as submitted, which is the document id if the file is one document; a
            document without a title has the last part of it.
        sandbox: Reads the file.
        columns: Columns of a table.
        lists: Collects attributes whose cells are read as lists undeclared. Optional.
    Raises: InvalidRequest: the file as a whole cannot be read.
    """
    bad_rows: list[BadRow] = []
    seen: set[str] = set()
    collected = BadRows(allowed=sys.maxsize, on_bad_row=bad_rows.append)
    rows = sandbox.read(path, name, name, collected, columns, title=_title_of(name))
    while True:
        row = next(rows, None)
        for one in bad_rows:
            yield FileDocument(SourceUrl(str(one.location)), one.reason)
        bad_rows.clear()
        if row is None:
            return
        if row.item.id in seen:
            yield FileDocument(
                SourceUrl(str(row.location)),
                f"item {row.item.id!r} occurs twice in the file; give every document its own id",
            )
            continue
        seen.add(row.item.id)
        if lists is not None:
            lists.see(name, row.item.attributes)
        yield FileDocument(row.item)


def read_document(path: Path, name: str, sandbox: SandboxReader) -> Item:
    """Returns the document of a file that is one document.

    Raises: InvalidRequest: it cannot be read.
    """
    for source, error in read_documents(path, name, sandbox):
        if error:
            raise InvalidRequest(error)
        assert isinstance(source, Item)
        return source
    raise InvalidRequest(f"{name} contains no document")


def _title_of(name: str) -> str:
    """Returns the last part of a name or URL without its suffix."""
    return PurePosixPath(unquote(urlsplit(name).path) if "://" in name else name).stem

"""Files of the queue become documents: one, or one on each row."""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

from index_builder.documents.bad_rows import BadRow, BadRows
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.corpus import read_file
from index_builder.readers.sandbox import SandboxReader
from nearline.contract import IngestSource, Item, SourceUrl
from nearline.errors import InvalidRequest


class FileDocument(NamedTuple):
    """A document of a file. source: It, or where it stood. error: Why it is none; empty: it is."""

    source: IngestSource
    error: str = ""


def read_documents(path: Path, name: str, apart: SandboxReader) -> Generator[FileDocument]:
    """Yields every document of a file in order, malformed rows among them.

    The same file gives the same documents in the same order each time.

    Args:
        path: The file; its ending says what kind it is.
        name: As whoever submitted it knows it; id of the document where the file is one.
        apart: Reads HTML and PDF.
    Raises: InvalidRequest: the whole file cannot be read.
    """
    bad: list[BadRow] = []
    seen: set[str] = set()
    rows = read_file(
        path,
        name,
        name,
        DocumentColumns(),
        BadRows(allowed=sys.maxsize, on_bad_row=bad.append),
        apart,
    )
    while True:
        row = next(rows, None)
        for one in bad:
            yield FileDocument(SourceUrl(str(one.location)), one.reason)
        bad.clear()
        if row is None:
            return
        if row.item.id in seen:
            yield FileDocument(
                SourceUrl(str(row.location)),
                f"the file has item {row.item.id!r} twice; every document needs an id of its own",
            )
            continue
        seen.add(row.item.id)
        yield FileDocument(row.item)


def read_document(path: Path, name: str, apart: SandboxReader) -> Item:
    """Returns the document of a file that is one.

    Raises: InvalidRequest: it cannot be read.
    """
    for source, error in read_documents(path, name, apart):
        if error:
            raise InvalidRequest(error)
        assert isinstance(source, Item)
        return source
    raise InvalidRequest(f"{name} has no document")

"""The reader of each format. Files of unknown origin are read in the sandbox, which calls these."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from index_builder.documents.bad_rows import EMPTY_FILE, BadRows
from index_builder.documents.detected_lists import DELIMITED
from index_builder.documents.records import SourceLocation, SourceRow
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.protocol import ParsedDocument, UnreadableFile
from nearline.contract import Item

MATRIX = ".npy"
_JSON_LINES = {".jsonl", ".ndjson"}
_PARQUET = {".parquet"}
_MANUAL_PAGES = {f".{section}" for section in range(1, 9)}
_PROSE = {".txt", ".md", ".markdown", ".rst", ".adoc", ".asciidoc"} | _MANUAL_PAGES
_PDF = {".pdf"}
_OFFICE = {".docx", ".pptx", ".xlsx", ".odt", ".epub", ".eml", ".rtf"}
_MARKUP = {".html", ".htm"} | _PDF | _OFFICE
# Formats with a document on each row.
TABLES = frozenset(_JSON_LINES | DELIMITED | _PARQUET)
# Formats that the sandbox reads; a matrix of vectors is mapped into memory instead.
SANDBOXED = TABLES | _PROSE | _MARKUP
SUFFIXES = sorted(SANDBOXED | {MATRIX})


# Yields the rows of a file: path, its name as users know it, columns, malformed rows.
TableReader: TypeAlias = Callable[[Path, str, DocumentColumns, BadRows], Iterator[SourceRow]]


def is_one_document(name: str) -> bool:
    """Returns whether a file of this name is one document, rather than one per row."""
    return Path(name).suffix.lower() in _PROSE | _MARKUP


def read_file(
    path: Path,
    source: str,
    document_id: str,
    title: str,
    columns: DocumentColumns,
    bad_rows: BadRows,
) -> Iterator[SourceRow]:
    """Yields the rows of a file according to its format; malformed rows are counted.

    A file without a byte counts as one malformed row, whatever its format.

    Args:
        path: The file; its suffix, one of SANDBOXED, determines the format.
        source: Its name as users know it.
        document_id: Id of the document if the file is one document.
        title: Title of that document if the file does not say.
        columns: Names of the columns.
        bad_rows: Receives malformed rows.
    Raises: DamagedFile: the rest of the file cannot be read. InvalidRequest: a table lacks a named
        column.
    """
    if path.stat().st_size == 0:
        bad_rows.add(SourceLocation(source, 0), EMPTY_FILE)
        return iter(())
    # Names of files may hold bytes of any encoding.
    suffix, title = path.suffix.lower(), _clean(title)
    if suffix in TABLES and not (columns.sheets and _is_sheet(path, columns)):
        return table_reader(suffix)(path, source, columns, bad_rows)
    return _read_document(path, source, document_id, title, bad_rows)


def _is_sheet(path: Path, columns: DocumentColumns) -> bool:
    if path.suffix.lower() not in DELIMITED:
        return False
    from index_builder.readers.delimited import lacks_columns

    return lacks_columns(path, columns)


def table_reader(suffix: str) -> TableReader:
    """Returns the reader of a table: suffix is one of TABLES, or empty for JSON lines."""
    # Imported late: each format has libraries of its own.
    if suffix in _PARQUET:
        from index_builder.readers.parquet import read_parquet

        return read_parquet
    if suffix in DELIMITED:
        from index_builder.readers.delimited import read_delimited

        return read_delimited
    from index_builder.readers.json_lines import read_json_lines

    return read_json_lines


def _read_document(
    path: Path, source: str, document_id: str, title: str, bad_rows: BadRows
) -> Iterator[SourceRow]:
    """Yields the one document of a file; a malformed one is counted.

    Its attribute `path` is its id, and `pages` the number of pages of a PDF.
    """
    try:
        document = _parsed(path)
    except UnreadableFile as error:
        bad_rows.add(SourceLocation(source, error.line), str(error))
        return
    if document is None:
        return
    page_count = {"pages": document.pages} if document.pages else {}
    yield SourceRow(
        SourceLocation(source, 1),
        Item(
            id=document_id,
            title=_clean(document.title) or title,
            text=_clean(document.text),
            attributes={"path": document_id, **page_count},
        ),
    )


def _parsed(path: Path) -> ParsedDocument | None:
    suffix = path.suffix.lower()
    if suffix in _PDF:
        from index_builder.readers.pdf import parse_pdf

        return parse_pdf(path)
    if suffix in _OFFICE:
        from index_builder.readers.office.documents import parse_office

        return parse_office(path)
    if suffix in DELIMITED:
        from index_builder.readers.office.sheets import parse_delimited

        return parse_delimited(path)
    if suffix in _PROSE:
        from index_builder.readers.text import parse_prose

        return parse_prose(path)
    from index_builder.readers.html import parse_page

    return parse_page(path)


def _clean(text: str) -> str:
    # Broken fonts and character references produce lone surrogates, which no text may contain.
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")

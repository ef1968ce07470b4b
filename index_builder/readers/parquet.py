"""Reads Parquet in batches of rows, so that a file of any size needs little memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from index_builder.documents.bad_rows import BadRows, DamagedFile, reason_of
from index_builder.documents.records import SourceLocation, SourceRow
from index_builder.readers.columns import DEFAULT_ID, DEFAULT_TEXT, DEFAULT_TITLE, DocumentColumns
from nearline.errors import InvalidRequest

_BATCH_ROWS = 1024
_BATCH_BYTES = 64 << 20
_BUFFER_BYTES = 1 << 20


def read_parquet(
    path: Path, source: str, columns: DocumentColumns, bad_rows: BadRows
) -> Iterator[SourceRow]:
    """Yields the rows of a file; the line of a row is its number, from 1.

    Raises: DamagedFile: the rest of the file cannot be read. InvalidRequest: it lacks a named
        column.
    """
    number = 0
    try:
        # With a buffer, columns are read in parts and not whole.
        with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES) as file:
            names = file.schema_arrow.names
            columns.check_names(names, source)
            batches = file.iter_batches(
                _batch_rows(file.metadata), columns=_wanted(names, columns), use_threads=False
            )
            for batch in batches:
                for record in _records(batch):
                    number += 1
                    location = SourceLocation(source, number)
                    try:
                        if isinstance(record, Exception):
                            raise InvalidRequest(_problem(record))
                        yield SourceRow(location, columns.item(record))
                    except InvalidRequest as error:
                        bad_rows.add(location, error.message)
    except (pa.ArrowException, OSError) as error:
        # Damaged pages and sizes that cannot be are found only when they are reached.
        if getattr(error, "errno", None) is not None:
            raise
        raise DamagedFile(
            f"{source} is not a readable Parquet file: {reason_of(error)}", number + 1
        ) from error


def _batch_rows(metadata: pq.FileMetaData) -> int:
    """Returns the rows to read at a time; fewer if they are long."""
    groups = range(metadata.num_row_groups)
    size = sum(metadata.row_group(number).total_byte_size for number in groups)
    fitting: int = _BATCH_BYTES * metadata.num_rows // max(size, 1)
    return max(1, min(_BATCH_ROWS, fitting))


def _wanted(names: list[str], columns: DocumentColumns) -> list[str] | None:
    """Returns the columns to read; None for all."""
    if columns.attributes is None:
        return None
    defaults = {*DEFAULT_ID, *DEFAULT_TITLE, *DEFAULT_TEXT}
    chosen = {columns.id, columns.title, columns.text, columns.vector, *columns.attributes}
    return [name for name in names if name in defaults | chosen]


def _records(batch: pa.RecordBatch) -> Iterator[dict[str, object] | Exception]:
    """Yields rows as dictionaries; for a row that has no values in Python, the error.

    Such rows have text that is not UTF-8, or a time beyond the years of Python.
    """
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError) as error:
        if batch.num_rows == 1:
            yield error
            return
        for row in range(batch.num_rows):
            yield from _records(batch.slice(row, 1))


def _problem(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return f"a value cannot be read: {reason_of(error)}"

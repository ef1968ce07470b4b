"""Reads Parquet in batches of rows, so that a file of any size needs little memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from index_builder.documents.bad_rows import BadRows
from index_builder.documents.records import SourceLocation, SourceRow
from index_builder.readers.columns import DEFAULT_ID, DEFAULT_TEXT, DEFAULT_TITLE, DocumentColumns
from nearline.errors import InvalidRequest

_BATCH_ROWS = 1024


def read_parquet(
    path: Path, source: str, columns: DocumentColumns, bad_rows: BadRows
) -> Iterator[SourceRow]:
    """Yields the rows of a file; the line of a row is its number, from 1.

    Raises: InvalidRequest: the file is not Parquet, or lacks a named column.
    """
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            columns.check_names(names, source)
            number = 0
            for batch in file.iter_batches(_BATCH_ROWS, columns=_wanted(names, columns)):
                for record in _records(batch):
                    number += 1
                    location = SourceLocation(source, number)
                    try:
                        if record is None:
                            raise InvalidRequest("not UTF-8")
                        yield SourceRow(location, columns.item(record))
                    except InvalidRequest as error:
                        bad_rows.add(location, error.message)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InvalidRequest(
            f"{source} is not a readable Parquet file: {error}", field="corpus"
        ) from error


def _wanted(names: list[str], columns: DocumentColumns) -> list[str] | None:
    """Returns the columns to read; None for all."""
    if columns.attributes is None:
        return None
    defaults = {*DEFAULT_ID, *DEFAULT_TITLE, *DEFAULT_TEXT}
    chosen = {columns.id, columns.title, columns.text, columns.vector, *columns.attributes}
    return [name for name in names if name in defaults | chosen]


def _records(batch: pa.RecordBatch) -> Iterator[dict[str, object] | None]:
    """Yields rows as dictionaries; None for a row with text that is not UTF-8."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            yield None
            return
        for row in range(batch.num_rows):
            yield from _records(batch.slice(row, 1))

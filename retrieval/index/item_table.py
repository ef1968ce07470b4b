"""The items of one shard: a memory-mapped Arrow file, read through numpy views.

One record per document, in id order. Columns:
    id, title, text: string (or large_string).
    chunk_starts, chunk_ends: list of int (code points of `text`); one entry per chunk, so that
        chunk c of document i is row `first_row(i) + c` of the index.
    attributes: string, the JSON of an object; a time is {"$time": ISO 8601}.
    version: int64, optional: number of the last live change; 0 if there was none.
    expires: int64, optional: expiry time in microseconds since 1970; null: the document does not
        expire.
Other columns belong to the builder and are not read here.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearline.contract import Attributes
from nearline.errors import SnapshotCorrupt
from nearline.times import from_us
from retrieval.index.protocols import Documents
from retrieval.index.sorted_ids import SortedIds

ITEMS_FILE = "items.arrow"
# The columns of every items file; list offsets have 32 bits.
ITEMS_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("title", pa.large_string()),
        ("text", pa.large_string()),
        ("chunk_starts", pa.list_(pa.int64())),
        ("chunk_ends", pa.list_(pa.int64())),
        ("attributes", pa.string()),
    ]
)
_TIME_KEY = "$time"
# Replaces null among expiry times.
_NEVER = np.iinfo(np.int64).max


class _Texts(Protocol):
    def __getitem__(self, row: int) -> str: ...


class _TextBatch:
    """A string column of one record batch; a lookup costs one slice and one decode."""

    __slots__ = ("_data", "_offsets")

    def __init__(self, array: pa.Array) -> None:
        wide = pa.types.is_large_string(array.type)
        _, offsets, data = array.buffers()
        numbers = np.frombuffer(offsets, np.int64 if wide else np.int32)
        self._offsets = numbers[array.offset : array.offset + len(array) + 1]
        self._data = memoryview(data) if data is not None else memoryview(b"")

    def __getitem__(self, row: int) -> str:
        return str(self._data[self._offsets[row] : self._offsets[row + 1]], "utf-8")


class _TextColumn:
    """A string column of several record batches."""

    __slots__ = ("_batches", "_firsts")

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._batches = [_TextBatch(chunk) for chunk in column.chunks]
        lengths = [len(chunk) for chunk in column.chunks]
        self._firsts = [0, *np.cumsum(lengths)[:-1].tolist()]

    def __getitem__(self, row: int) -> str:
        batch = bisect_right(self._firsts, row) - 1
        return self._batches[batch][row - self._firsts[batch]]


class ItemTable(Documents):
    """Documents and chunks of one shard.

    Args:
        path: The Arrow file; it must not change while it is mapped.
    Raises: SnapshotCorrupt: the file is not a valid items file.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._source = pa.memory_map(str(path))
            table = pa.ipc.open_file(self._source).read_all()
            columns: dict[str, Any] = {
                name: table.column(name)
                for name in ("id", "title", "text", "chunk_starts", "chunk_ends", "attributes")
            }
        except (pa.ArrowInvalid, KeyError, OSError) as error:
            raise SnapshotCorrupt(
                f"{path} is not a readable items file ({error}); rebuild the snapshot"
            ) from error
        self.documents: int = table.num_rows
        self._ids = SortedIds(pa.concat_arrays(columns["id"].chunks or [pa.array([], pa.string())]))
        self._titles = _text_column(columns["title"])
        self._texts = _text_column(columns["text"])
        self._attributes = _text_column(columns["attributes"])
        counts = _list_lengths(columns["chunk_starts"])
        super().__init__(
            np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
            _list_values(columns["chunk_starts"]),
            _list_values(columns["chunk_ends"]),
        )
        self._versions = _numbers(table, "version", 0)
        self._expires = _numbers(table, "expires", _NEVER)
        self.chunks = int(self.first_rows[-1])
        self.max_chunks = int(counts.max(initial=0))
        self._one_each = self.max_chunks <= 1 and self.chunks == self.documents

    def documents_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the document of each index row; same shape as rows."""
        if self._one_each:
            return rows
        return np.searchsorted(self.first_rows, rows, side="right") - 1

    def id(self, document: int) -> str:
        """Returns the id of a document."""
        return self._ids[document]

    def ids(self, documents: NDArray[np.int64]) -> list[str]:
        """Returns the ids of documents."""
        return self._ids.many(documents)

    def find(self, document_id: str) -> int | None:
        """Returns the document with an id, by binary search in the sorted ids; None if absent."""
        return self._ids.place_of(document_id)

    def following(self, after_id: str) -> range:
        """Returns the documents with a greater id, in id order; "" precedes all ids."""
        return range(bisect_right(self._ids, after_id) if after_id else 0, self.documents)

    def title(self, document: int) -> str:
        """Returns the title of a document; it may be empty."""
        return self._titles[document]

    def text(self, document: int) -> str:
        """Returns the whole text of a document."""
        return self._texts[document]

    def attributes(self, document: int) -> Attributes:
        """Returns the attributes of a document, times as aware datetimes."""
        text = self._attributes[document]
        attributes: Attributes = json.loads(text, object_hook=_decode_time) if text else {}
        return attributes

    def version(self, document: int) -> int:
        """Returns the number of the last live change of a document; 0 if there was none."""
        return 0 if self._versions is None else int(self._versions[document])

    def expires(self, document: int) -> datetime | None:
        """Returns the expiry time of a document; None if it does not expire."""
        if self._expires is None or self._expires[document] == _NEVER:
            return None
        return from_us(int(self._expires[document]))

    def expiries(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the documents that expire and their expiry times, soonest first.

        Returns: (n,) document numbers and (n,) microseconds since 1970, int64.
        """
        if self._expires is None:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        documents = np.flatnonzero(self._expires != _NEVER)
        times = self._expires[documents]
        order = np.argsort(times, kind="stable")
        return documents[order], times[order]

    def close(self) -> None:
        """Releases the mapping once nothing refers to it."""
        self._source.close()


def _text_column(column: pa.ChunkedArray) -> _Texts:
    return _TextBatch(column.chunk(0)) if column.num_chunks == 1 else _TextColumn(column)


def _numbers(table: pa.Table, name: str, absent: int) -> NDArray[np.int64] | None:
    """Reads an optional column; returns None if no document has a value."""
    if name not in table.column_names or table.column(name).null_count == table.num_rows:
        return None
    numbers: NDArray[np.int64] = table.column(name).fill_null(absent).to_numpy()
    return numbers


def _list_lengths(column: pa.ChunkedArray) -> NDArray[np.int64]:
    parts = [np.diff(chunk.offsets.to_numpy()) for chunk in column.chunks]
    return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)


def _list_values(column: pa.ChunkedArray) -> NDArray[np.integer[Any]]:
    # `flatten` respects slices; a single batch stays a view of the mapping.
    parts: Sequence[NDArray[np.integer[Any]]] = [
        chunk.flatten().to_numpy() for chunk in column.chunks
    ]
    if not parts:
        return np.empty(0, np.int64)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _decode_time(value: dict[str, object]) -> object:
    text = value.get(_TIME_KEY)
    if len(value) == 1 and isinstance(text, str):
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            return value
    return value

"""The items of one shard: a memory-mapped Arrow file, read through plain numpy views.

One record per document, in id order. Columns:
    id, title, text: string (or large_string).
    chunk_starts, chunk_ends: list of int (code points of `text`); one entry per chunk, so that
        chunk c of document i is row `first_row(i) + c` of the index.
    attributes: string, the JSON of an object; a time is {"$time": ISO 8601}.
Further columns belong to the filter planner and are not read here.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearline.contract import Attributes
from nearline.errors import SnapshotCorrupt

_TIME_KEY = "$time"
_LARGE = pa.large_string()


class _Texts(Protocol):
    def __getitem__(self, row: int) -> str: ...


class _Ids:
    """All ids in one piece, in memory: every hit reads one."""

    __slots__ = ("_data", "_offsets")

    def __init__(self, column: pa.ChunkedArray) -> None:
        array = pa.concat_arrays(column.cast(pa.large_string()).chunks or [pa.array([], _LARGE)])
        _, offsets, data = array.buffers()
        self._offsets = np.frombuffer(offsets, np.int64)[: len(array) + 1]
        self._data = b"" if data is None else data.to_pybytes()

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, document: int) -> str:
        return self._data[self._offsets[document] : self._offsets[document + 1]].decode()

    def many(self, documents: NDArray[np.int64]) -> list[str]:
        data = self._data
        starts, ends = self._offsets[documents], self._offsets[documents + 1]
        return [
            data[start:end].decode()
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        ]


class _TextBatch:
    """A string column of one record batch; a lookup costs one slice and one decoding."""

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


class ItemTable:
    """Documents and chunks of one shard.

    Args:
        path: The Arrow file; it must not change while it is mapped.
    Raises: SnapshotCorrupt: not such a file.
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
                f"{path} is not an items file that can be read ({error}); rebuild the snapshot"
            ) from error
        self.documents: int = table.num_rows
        self._ids = _Ids(columns["id"])
        self._titles = _text_column(columns["title"])
        self._texts = _text_column(columns["text"])
        self._attributes = _text_column(columns["attributes"])
        counts = _list_lengths(columns["chunk_starts"])
        # (documents + 1,): the index row of each document's first chunk.
        self._first_rows = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        self._starts = _list_values(columns["chunk_starts"])
        self._ends = _list_values(columns["chunk_ends"])
        self.chunks = int(self._first_rows[-1])
        self.max_chunks = int(counts.max(initial=0))
        self._one_each = self.max_chunks <= 1 and self.chunks == self.documents

    def documents_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Gives the document of each index row; same shape as rows."""
        if self._one_each:
            return rows
        return np.searchsorted(self._first_rows, rows, side="right") - 1

    def chunks_of(
        self, rows: NDArray[np.int64], documents: NDArray[np.int64]
    ) -> tuple[list[int], list[int], list[int]]:
        """Gives chunk numbers within their documents, first and past-the-last code points.

        Args:
            rows, documents: (n,) index rows and what `documents_of` gave for them.
        """
        numbers = rows - self._first_rows[documents]
        return numbers.tolist(), self._starts[rows].tolist(), self._ends[rows].tolist()

    @property
    def first_rows(self) -> NDArray[np.int64]:
        """(documents + 1,) the index row of each document's first chunk, and all there are."""
        return self._first_rows

    def rows_of(self, document: int) -> NDArray[np.int64]:
        """Gives the index rows of a document."""
        return np.arange(self._first_rows[document], self._first_rows[document + 1])

    def rows_of_many(
        self, documents: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Gives the index rows of documents, document after document, and how many each has."""
        firsts = self._first_rows[documents]
        counts = self._first_rows[documents + 1] - firsts
        ends = np.cumsum(counts)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
        return np.repeat(firsts, counts) + within, counts

    def id(self, document: int) -> str:
        """Gives the id of a document."""
        return self._ids[document]

    def ids(self, documents: NDArray[np.int64]) -> list[str]:
        """Gives the ids of documents."""
        return self._ids.many(documents)

    def find(self, document_id: str) -> int | None:
        """Finds a document by id: a binary search, since records stand in id order."""
        low = bisect_left(self._ids, document_id)
        found = low < self.documents and self._ids[low] == document_id
        return low if found else None

    def first_after(self, document_id: str) -> int:
        """Gives the first document whose id is greater; `documents` where there is none."""
        return bisect_right(self._ids, document_id)

    def title(self, document: int) -> str:
        """Gives the title of a document; it may be empty."""
        return self._titles[document]

    def text(self, document: int) -> str:
        """Gives the whole text of a document."""
        return self._texts[document]

    def attributes(self, document: int) -> Attributes:
        """Gives the attributes of a document, times as aware datetimes."""
        text = self._attributes[document]
        attributes: Attributes = json.loads(text, object_hook=_decode_time) if text else {}
        return attributes

    def close(self) -> None:
        """Lets go of the mapping once nothing refers to it."""
        self._source.close()


def _text_column(column: pa.ChunkedArray) -> _Texts:
    return _TextBatch(column.chunk(0)) if column.num_chunks == 1 else _TextColumn(column)


def _list_lengths(column: pa.ChunkedArray) -> NDArray[np.int64]:
    parts = [np.diff(chunk.offsets.to_numpy()) for chunk in column.chunks]
    return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)


def _list_values(column: pa.ChunkedArray) -> NDArray[np.integer[Any]]:
    # `flatten` leaves out what lies outside a slice; one batch stays a view of the mapping.
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

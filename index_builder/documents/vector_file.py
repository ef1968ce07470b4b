"""The vectors of a build on disk, with a journal of those written durably."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.errors import SnapshotMismatch
from nearline.store.durable import store_errors

_MAGIC = b"NLJ1"
# Magic, first row, rows, dim, CRC of the vectors; then token counts of the rows; then a CRC.
_HEAD = struct.Struct("<4sQIII")
_CRC = struct.Struct("<I")


class _Entry(NamedTuple):
    first: int
    dim: int
    vectors_crc: int
    lengths: NDArray[np.uint32]


class VectorFile:
    """A file whose row r is the vector of chunk r, float32.

    A batch counts as written once its journal entry is on disk; the entry follows the vectors.
    Opening the file drops an incomplete last entry of the journal, and every entry whose vectors do
    not match.

    Args:
        folder: Work folder; holds the two files.
    """

    def __init__(self, folder: Path) -> None:
        self._vectors_path = folder / "vectors.f32"
        self._journal_path = folder / "vectors.journal"
        self.dim = 0
        self._entries: list[_Entry] = []
        flags = os.O_RDWR | os.O_CREAT
        self._vectors = os.open(self._vectors_path, flags, 0o644)
        self._journal = os.open(self._journal_path, flags | os.O_APPEND, 0o644)
        self._recover()

    def write(
        self,
        rows: NDArray[np.int64],
        vectors: NDArray[np.float32],
        tokens: NDArray[np.int64] | None = None,
        truncated: NDArray[np.bool_] | None = None,
        *,
        sync: bool = True,
    ) -> None:
        """Writes a batch, durably unless `sync` is False.

        Args:
            rows: (n,) row of each vector, ascending.
            vectors: (n, d) float32.
            tokens: (n,) tokens of each text; None if there were no texts.
            truncated: (n,) whether the model read less than the whole text.
            sync: Force the batch to disk now; if False, it is durable after `sync()`.
        Raises: SnapshotMismatch: d differs from earlier batches. StoreError: no space.
        """
        dim = vectors.shape[1]
        if self.dim and dim != self.dim:
            raise SnapshotMismatch(
                f"a batch has vectors of dim {dim}, earlier ones have {self.dim}; the embedder "
                "changed: start the build again"
            )
        self.dim = dim
        lengths = np.zeros(len(rows), np.uint32)
        if tokens is not None and truncated is not None:
            lengths = pack_lengths(tokens, truncated)
        heads = []
        with store_errors(self._vectors_path):
            for low, high in _runs(rows):
                first = int(rows[low])
                data = np.ascontiguousarray(vectors[low:high], "<f4").tobytes()
                entry = _Entry(first, dim, zlib.crc32(data), lengths[low:high])
                head = _HEAD.pack(_MAGIC, first, high - low, dim, entry.vectors_crc)
                head += entry.lengths.tobytes()
                _write_at(self._vectors, data, first * dim * 4)
                heads.append(head + _CRC.pack(zlib.crc32(head)))
                self._entries.append(entry)
            if sync:
                os.fdatasync(self._vectors)
            _write_at(self._journal, b"".join(heads), None)
            if sync:
                os.fdatasync(self._journal)

    def sync(self) -> None:
        """Forces unsynced batches to disk."""
        with store_errors(self._vectors_path):
            os.fdatasync(self._vectors)
            os.fdatasync(self._journal)

    def written(self, rows: int) -> NDArray[np.bool_]:
        """Returns which of the first `rows` rows are written: (rows,) bool."""
        mask = np.zeros(rows, np.bool_)
        for entry in self._entries:
            mask[entry.first : entry.first + len(entry.lengths)] = True
        return mask

    def lengths(self, rows: int) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        """Returns (rows,) tokens of each chunk and (rows,) whether it was truncated."""
        packed = np.zeros(rows, np.uint32)
        for entry in self._entries:
            packed[entry.first : entry.first + len(entry.lengths)] = entry.lengths
        return packed >> np.uint32(1), (packed & 1).astype(np.bool_)

    def matrix(self, rows: int) -> NDArray[np.float32]:
        """Maps the vectors into memory, read-only: (rows, d) float32."""
        if rows == 0:
            return np.empty((0, self.dim), np.float32)
        mapped: NDArray[np.float32] = np.memmap(
            self._vectors_path, np.dtype("<f4"), "r", shape=(rows, self.dim)
        )
        return mapped

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Reads vectors; any thread may call this, even after `close`.

        rows: (n,) ascending, all written. Returns: (n, d) float32.
        """
        size = self.dim * 4
        with store_errors(self._vectors_path), self._vectors_path.open("rb") as stream:
            parts = [
                os.pread(stream.fileno(), (high - low) * size, int(rows[low]) * size)
                for low, high in _runs(rows)
            ]
        return np.frombuffer(b"".join(parts), "<f4").reshape(len(rows), self.dim)

    def clear(self) -> None:
        """Removes all vectors."""
        os.ftruncate(self._journal, 0)
        os.ftruncate(self._vectors, 0)
        self._entries.clear()
        self.dim = 0

    def close(self) -> None:
        """Closes the files."""
        os.close(self._vectors)
        os.close(self._journal)

    def _recover(self) -> None:
        data = self._journal_path.read_bytes()
        position = 0
        while (entry := _parse(data, position)) is not None:
            position += _HEAD.size + entry.lengths.nbytes + _CRC.size
            row_bytes = entry.dim * 4
            stored = os.pread(
                self._vectors, len(entry.lengths) * row_bytes, entry.first * row_bytes
            )
            if zlib.crc32(stored) == entry.vectors_crc:
                self._entries.append(entry)
                self.dim = entry.dim
        os.ftruncate(self._journal, position)


def pack_lengths(
    tokens: NDArray[np.integer[Any]], truncated: NDArray[np.bool_]
) -> NDArray[np.uint32]:
    """Returns (n,) tokens of each text, with whether it was truncated in the lowest bit."""
    return (tokens.astype(np.uint32) << np.uint32(1)) | truncated.astype(np.uint32)


def _runs(rows: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Returns the runs of consecutive rows as pairs: first position, position past the last."""
    cuts = (np.flatnonzero(np.diff(rows) != 1) + 1).tolist()
    return list(zip([0, *cuts], [*cuts, len(rows)], strict=True)) if len(rows) else []


def _parse(data: bytes, position: int) -> _Entry | None:
    """Parses the journal entry at a position; None if there is no intact one."""
    if len(data) - position < _HEAD.size:
        return None
    magic, first, rows, dim, vectors_crc = _HEAD.unpack_from(data, position)
    end = position + _HEAD.size + rows * 4
    if magic != _MAGIC or len(data) < end + _CRC.size:
        return None
    if zlib.crc32(data[position:end]) != _CRC.unpack_from(data, end)[0]:
        return None
    lengths = np.frombuffer(data, "<u4", rows, position + _HEAD.size)
    return _Entry(first, dim, vectors_crc, lengths)


def _write_at(descriptor: int, data: bytes, offset: int | None) -> None:
    """Writes all data: at an offset, or at the end of a file opened for appending."""
    view = memoryview(data)
    while view:
        if offset is None:
            written = os.write(descriptor, view)
        else:
            written = os.pwrite(descriptor, view, offset)
            offset += written
        view = view[written:]

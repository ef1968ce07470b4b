"""Pieces of embedded vectors: the form in which they lie in a store, for another machine."""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_builder.documents.spool import Spool
from nearline.items.documents import text_to_embed

_MAGIC = b"NLW1"
# Magic, rows, dim, SHA-256 of the texts; then rows, token counts and vectors.
_HEAD = struct.Struct("<4sII32s")


class VectorPiece(NamedTuple):
    """Vectors of some chunks.

    rows: (n,) int64, ascending. lengths: (n,) uint32, as `VectorFile` packs them. vectors: (n, d)
    float32. texts: SHA-256 of the texts that were embedded; see `digest_texts`.
    """

    rows: NDArray[np.int64]
    lengths: NDArray[np.uint32]
    vectors: NDArray[np.float32]
    texts: bytes

    def to_bytes(self) -> bytes:
        """Returns the piece as a file: little-endian."""
        n, dim = self.vectors.shape
        return b"".join(
            (
                _HEAD.pack(_MAGIC, n, dim, self.texts),
                self.rows.astype("<i8").tobytes(),
                self.lengths.astype("<u4").tobytes(),
                np.ascontiguousarray(self.vectors, "<f4").tobytes(),
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> VectorPiece | None:
        """Reads the result of `to_bytes`; None if it is something else."""
        if len(data) < _HEAD.size:
            return None
        magic, n, dim, texts = _HEAD.unpack_from(data)
        if magic != _MAGIC or not n or len(data) != _HEAD.size + n * (12 + 4 * dim):
            return None
        rows = np.frombuffer(data, "<i8", n, _HEAD.size)
        lengths = np.frombuffer(data, "<u4", n, _HEAD.size + 8 * n)
        vectors = np.frombuffer(data, "<f4", n * dim, _HEAD.size + 12 * n).reshape(n, dim)
        if rows[0] < 0 or (np.diff(rows) <= 0).any():
            return None
        return cls(rows, lengths, vectors, texts)


def digest_texts(spool: Spool, rows: NDArray[np.int64], max_characters: int) -> bytes:
    """Returns the SHA-256 of the texts of chunks, as they are sent to the embedder.

    Two builds with the same texts in a piece may exchange its vectors, whatever else differs.

    Args:
        spool: Chunks.
        rows: (n,) rows of the spool, ascending.
        max_characters: Limit of the embedder.
    """
    digest = hashlib.sha256()
    for chunk in spool.chunks_of(rows):
        text = text_to_embed(chunk.title, chunk.text)[:max_characters].encode()
        digest.update(len(text).to_bytes(8, "little") + text)
    return digest.digest()

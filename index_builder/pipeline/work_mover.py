"""Moves embedded vectors between the work folder of a build and its store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from index_builder.documents.spool import Spool
from index_builder.documents.vector_file import VectorFile
from index_builder.documents.vector_pieces import VectorPiece, digest_texts
from index_builder.options.build_options import BuildOptions
from nearline.contract import EmbedderInfo
from nearline.errors import NearlineError, StoreError
from nearline.store.local import LocalFiles
from nearline.store.snapshot import Store
from nearline.store.work import BuildWork

# A piece is uploaded once it has so many bytes of vectors, or after so long: a machine that is lost
# takes the work of half a minute with it.
PIECE_BYTES = 16 << 20
PIECE_S = 30.0
# How long a build that was cancelled may take to upload what it has.
_LAST_UPLOAD_S = 10.0
_log = logging.getLogger(__name__)


def open_work(options: BuildOptions, key: str) -> BuildWork | None:
    """Returns the work of a build in its store; None if the store is a folder of this machine."""
    files = Store.open(options.store).files
    return None if isinstance(files, LocalFiles) else BuildWork(files, options.collection, key)


def download_vectors(
    work: BuildWork, spool: Spool, vectors: VectorFile, info: EmbedderInfo
) -> NDArray[np.bool_]:
    """Fetches the vectors that another machine embedded, and that this one lacks; blocks.

    A damaged piece is removed, and its chunks are embedded again. A piece of other texts is left
    out.

    Args:
        work: Work of the build.
        spool: Chunks.
        vectors: Receives the vectors.
        info: Describes the embedder.
    Returns: (chunks,) which rows are in the store, as far as names of pieces say.
    Raises: StoreError.
    """
    stored = np.zeros(spool.chunks, np.bool_)
    written = vectors.written(spool.chunks)
    for one in work.pieces():
        if one.last >= spool.chunks:
            continue
        if not written[one.first : one.last + 1].all():
            data = work.read(one)
            piece = None if data is None else VectorPiece.from_bytes(data)
            if piece is None:
                _log.warning("damaged work is done again", extra={"file": one.name})
                continue
            if piece.rows[-1] >= spool.chunks or piece.vectors.shape[1] != info.dim:
                continue
            if piece.texts != digest_texts(spool, piece.rows, info.max_characters):
                continue
            new = ~written[piece.rows]
            if new.any():
                tokens, truncated = piece.lengths >> 1, (piece.lengths & 1).astype(np.bool_)
                vectors.write(
                    piece.rows[new],
                    piece.vectors[new],
                    tokens[new].astype(np.int64),
                    truncated[new],
                )
                written[piece.rows] = True
        stored[one.first : one.last + 1] = True
    return stored


class VectorUploader:
    """Uploads embedded vectors in pieces while others are embedded; an async context manager.

    Work in the store saves time and is not needed, so an upload that fails is tried again with the
    next, and never fails the build.

    Args:
        work: Work of the build.
        folder: Work folder: the spool is read with a connection of its own.
        shards: Number of shards of the spool.
        vectors: Vectors of the build.
        info: Describes the embedder.
    """

    def __init__(
        self, work: BuildWork, folder: Path, shards: int, vectors: VectorFile, info: EmbedderInfo
    ) -> None:
        self._work = work
        self._folder = folder
        self._shards = shards
        self._vectors = vectors
        self._info = info
        self._most_rows = max(1, PIECE_BYTES // (4 * info.dim))
        # Rows with their packed lengths; the vectors are on disk.
        self._pending: list[tuple[NDArray[np.int64], NDArray[np.uint32]]] = []
        self._count = 0
        self._full = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def add(self, rows: NDArray[np.int64], lengths: NDArray[np.uint32]) -> None:
        """Adds rows that were written. lengths: (n,), as `VectorFile` packs them."""
        if len(rows):
            self._pending.append((rows, lengths))
            self._count += len(rows)
        if self._count >= self._most_rows:
            self._full.set()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, kind: object, *rest: object) -> None:
        assert self._task is not None
        self._stopping = True
        self._full.set()
        await asyncio.wait({self._task}, timeout=None if kind is None else _LAST_UPLOAD_S)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while not self._stopping:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PIECE_S):
                    await self._full.wait()
            self._full.clear()
            await self._upload_all()

    async def _upload_all(self) -> None:
        while self._pending:
            batches, self._pending, self._count = self._pending, [], 0
            rows = np.concatenate([rows for rows, _ in batches])
            lengths = np.concatenate([lengths for _, lengths in batches])
            order = np.argsort(rows)
            rows, lengths = rows[order], lengths[order]
            done = 0
            try:
                for first in range(0, len(rows), self._most_rows):
                    part = slice(first, first + self._most_rows)
                    await asyncio.to_thread(self._upload, rows[part], lengths[part])
                    done = min(len(rows), part.stop)
            except NearlineError as error:
                _log.warning("work was not uploaded", extra={"reason": error.message})
                return
            finally:
                # What is left is uploaded with the next piece.
                self._pending[:0] = [(rows[done:], lengths[done:])] if done < len(rows) else []
                self._count += len(rows) - done

    def _upload(self, rows: NDArray[np.int64], lengths: NDArray[np.uint32]) -> None:
        spool = Spool(self._folder, self._shards)
        try:
            texts = digest_texts(spool, rows, self._info.max_characters)
        finally:
            spool.close()
        piece = VectorPiece(rows, lengths, self._vectors.read(rows), texts)
        self._work.add(piece.to_bytes(), int(rows[0]), int(rows[-1]))


def remove_quietly(work: BuildWork) -> None:
    """Removes the work of a finished build; blocks. Work that cannot be removed is pruned later."""
    try:
        work.remove()
    except StoreError as error:
        _log.warning("work was not removed", extra={"reason": error.message})

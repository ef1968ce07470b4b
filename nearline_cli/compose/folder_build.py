"""Builds the index of a folder; unchanged files are not hashed, known texts not embedded."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Self

import numpy as np

from index_builder.documents.bad_rows import BadRows
from index_builder.documents.records import SourceRow
from index_builder.pipeline.build_result import BuildResult
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.corpus import Corpus, CorpusFile
from index_builder.readers.folder import RefusedFile
from nearline.clients import AdminClient, EmbeddingClient
from nearline.contract import DEFAULT_COLLECTION, Embedder, EmbedderInfo, Embeddings, Lane, TextRole
from nearline.errors import NotReady
from nearline.store.durable import sha256_of
from nearline.store.snapshot import Store
from nearline.tls import TlsFiles
from nearline_cli.compose.indexed_files import FileState, IndexedFiles
from nearline_cli.compose.local_index import ensure_snapshot
from nearline_cli.inputs.skipped_files import print_skipped
from nearline_cli.local.keeper import Keeper, ended, find_keeper
from retrieval.snapshots import retention

# Files and rows that cannot be read are left out, up to this many.
MOST_BAD_ROWS = 1_000
_VECTORS = "vectors.sqlite"
_SCHEMA = """CREATE TABLE IF NOT EXISTS vectors (
    key BLOB PRIMARY KEY, vector BLOB, tokens INTEGER, truncated INTEGER
)"""
_FIND = "SELECT key, vector, tokens, truncated FROM vectors WHERE key = ?"
_WRITE = "REPLACE INTO vectors (key, vector, tokens, truncated) VALUES (?, ?, ?, ?)"
_SERVED_S = 60.0
_LOOK_S = 0.05
_ALIVE_S = 0.5


class FolderCorpus(Corpus):
    """The files of a folder, of which only those that changed are hashed.

    Args:
        folder: The folder.
        known: Hashes of unchanged files by path.
    Attributes:
        stopped: Whether reading ends at the next row.
    """

    def __init__(self, folder: Path, known: Mapping[str, str] = {}) -> None:
        super().__init__([folder], DocumentColumns(sheets=True), leave_out_tables=True)
        self._hashes = dict(known)
        self.stopped = False
        # Protocols have UTF-8 alone. Such a file is left out like one that cannot be read.
        for file in [one for one in self._files if not _is_utf8(one.name)]:
            self._files.remove(file)
            shown = os.fsencode(file.path).decode("utf-8", "backslashreplace")
            self._refused.append(RefusedFile(Path(shown), "its name is not UTF-8; rename it"))

    def rows(self, bad_rows: BadRows) -> Iterator[SourceRow]:
        """Yields every row of every file; see `Corpus`."""
        for row in super().rows(bad_rows):
            if self.stopped:
                raise NotReady("indexing was stopped")
            yield row

    def _hash(self, file: CorpusFile) -> str:
        if file.name not in self._hashes:
            # One that cannot be read is left out by the reader, with its reason.
            with contextlib.suppress(OSError):
                self._hashes[file.name] = sha256_of(file.path)
        return self._hashes.get(file.name, "")


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


class VectorCache:
    """An `Embedder` that asks another one for the vectors that its file lacks.

    Args:
        embedder: The other one.
        database: The file.
    """

    def __init__(self, embedder: Embedder, database: sqlite3.Connection) -> None:
        self._embedder = embedder
        self._database = database
        database.execute(_SCHEMA)
        self._used: set[bytes] = set()

    @classmethod
    @contextlib.contextmanager
    def open(cls, embedder: Embedder, path: Path) -> Iterator[Self]:
        """Opens the file; a damaged one is replaced."""
        with contextlib.ExitStack() as stack:
            try:
                database = stack.enter_context(contextlib.closing(sqlite3.connect(path)))
                # It can be computed again: the disk need not be waited for.
                database.execute("PRAGMA synchronous = OFF")
                cache = cls(embedder, database)
            except sqlite3.Error:
                with contextlib.suppress(OSError):
                    path.unlink()
                memory = stack.enter_context(contextlib.closing(sqlite3.connect(":memory:")))
                cache = cls(embedder, memory)
            yield cache

    async def info(self) -> EmbedderInfo:
        """Returns the card of the embedder."""
        return await self._embedder.info()

    async def embed(
        self,
        texts: Sequence[str],
        role: TextRole = TextRole.DOCUMENT,
        *,
        dimensions: int | None = None,
        expected_fingerprint: str = "",
        lane: Lane = Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> Embeddings:
        """Embeds texts; see `Embedder`."""
        what = f"{expected_fingerprint} {dimensions} {role.value}\n"
        keys = [hashlib.sha256((what + text).encode()).digest() for text in texts]
        self._used.update(keys)
        rows: dict[bytes, tuple[bytes, int, int]] = {}
        # Vectors that a damaged file lacks are computed again.
        with contextlib.suppress(sqlite3.Error):
            rows |= {
                row[0]: row[1:] for key in keys for row in self._database.execute(_FIND, (key,))
            }
        missing = [place for place, key in enumerate(keys) if key not in rows]
        if missing:
            new = await self._embedder.embed(
                [texts[place] for place in missing],
                role,
                dimensions=dimensions,
                expected_fingerprint=expected_fingerprint,
                lane=lane,
                timeout_s=timeout_s,
            )
            numbers = zip(new.vectors, new.tokens.tolist(), new.truncated.tolist(), strict=True)
            for place, (vector, tokens, truncated) in zip(missing, numbers, strict=True):
                rows[keys[place]] = (vector.astype(np.float32).tobytes(), tokens, truncated)
        # A full disk costs the next build some time, and this one nothing.
        with contextlib.suppress(sqlite3.Error), self._database:
            written = [(keys[place], *rows[keys[place]]) for place in missing]
            self._database.executemany(_WRITE, written)
        vectors, tokens_of, cut = zip(*(rows[key] for key in keys), strict=True)
        return Embeddings(
            vectors=np.stack([np.frombuffer(vector, np.float32) for vector in vectors]),
            fingerprint=new.fingerprint if missing else expected_fingerprint,
            tokens=np.array(tokens_of, np.int64),
            truncated=np.array(cut, np.bool_),
        )

    def forget_unused(self) -> None:
        """Removes the vectors that no text had since the file was opened."""
        with contextlib.suppress(sqlite3.Error), self._database:
            kept = self._database.execute("SELECT key FROM vectors").fetchall()
            unused = [row for row in kept if row[0] not in self._used]
            self._database.executemany("DELETE FROM vectors WHERE key = ?", unused)


async def serve_current(
    folder: Path,
    cache: Path,
    keeper: Keeper,
    states: Mapping[str, FileState],
    known: IndexedFiles,
    *,
    as_json: bool,
    summary: bool,
) -> tuple[IndexedFiles, BuildResult | None]:
    """Builds the index of a folder if a file changed, and waits until the keeper serves it.

    Args:
        folder: The folder.
        cache: The folder of its index.
        keeper: The keeper of that.
        states: The states of the files now.
        known: The files that the index was built from.
        as_json: Whether to show no progress.
        summary: Whether to print what was built.
    Returns: The files that it is built from now, and the result of the build; None if there was
        nothing to build.
    Raises:
        NotReady: The keeper ended, or does not serve the index.
    """
    corpus = FolderCorpus(folder, known.known_hashes(states))
    if summary:
        print_skipped(corpus.skipped)
    store = Store.open(str(cache))
    async with EmbeddingClient(keeper.embedding, token=keeper.token, tls=TlsFiles()) as client:
        with VectorCache.open(client, cache / _VECTORS) as embedder:
            # A question waits, and recall is not measured here.
            work = asyncio.ensure_future(
                ensure_snapshot(
                    *(store, corpus, embedder),
                    max_bad_rows=MOST_BAD_ROWS,
                    golden_queries=0,
                    as_json=as_json,
                    summary=summary,
                    reported=known.left_out,
                )
            )
            try:
                # Without its keeper, the build would wait for the model for a minute.
                while not (await asyncio.wait((work,), timeout=_ALIVE_S))[0]:
                    if find_keeper(cache) != keeper:
                        raise ended(cache)
            finally:
                corpus.stopped = True
                work.cancel()
                await asyncio.wait((work,))
            result = work.result()
            if result is not None:
                embedder.forget_unused()
    await _until_served(keeper, cache, store.alias_in_force(DEFAULT_COLLECTION).current)
    await asyncio.to_thread(_prune, store)
    indexed = IndexedFiles(
        keeper=keeper.token,
        states=states,
        hashes={source.uri: source.sha256 for source in corpus.sources()},
        left_out=known.left_out if result is None else result.bad_row_sample,
    )
    return indexed, result


async def _until_served(keeper: Keeper, cache: Path, snapshot_id: str) -> None:
    """Waits until the router of a keeper serves a snapshot."""
    problem = ""
    async with AdminClient(keeper.retrieval, token=keeper.token, tls=TlsFiles()) as admin:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SERVED_S):
                while True:
                    for one in (await admin.serving_status()).collections:
                        if one.snapshot_id == snapshot_id:
                            return
                        problem = one.problem
                    await asyncio.sleep(_LOOK_S)
    raise NotReady(
        f"snapshot {snapshot_id} is not served{problem and ': '}{problem}; ask again, or remove "
        f"{cache} to index the folder from the start"
    )


def _prune(store: Store) -> None:
    """Removes snapshots of earlier states of the folder, but the last."""
    planned = retention.plan_prune(store, DEFAULT_COLLECTION, 0, min_age=timedelta())
    retention.prune(store, DEFAULT_COLLECTION, planned)
    # The lock is held, so these are remains of builds that were stopped.
    shutil.rmtree(store.files.folder / DEFAULT_COLLECTION / ".build", ignore_errors=True)

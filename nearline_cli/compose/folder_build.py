"""Builds the index of a folder, of which only what changed is hashed and embedded."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

from index_builder.documents.bad_rows import BadRows
from index_builder.documents.records import SourceRow
from index_builder.execution.progress import Progress
from index_builder.pipeline.build_result import BuildResult
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.corpus import Corpus, CorpusFile
from nearline.clients import AdminClient, EmbeddingClient
from nearline.contract import DEFAULT_COLLECTION
from nearline.errors import NotReady
from nearline.store.durable import sha256_of
from nearline.store.snapshot import Store
from nearline.tls import TlsFiles
from nearline_cli.compose.folder_files import FileState, IndexedFiles
from nearline_cli.compose.local_index import ensure_snapshot
from nearline_cli.compose.vector_cache import VectorCache
from nearline_cli.inputs.skipped_files import print_skipped
from nearline_cli.local.keeper import Keeper
from retrieval.snapshots import retention

# Files and rows that cannot be read are left out, up to this many.
MOST_BAD_ROWS = 1_000
_VECTORS = "vectors.sqlite"
_SERVED_S = 60.0
_LOOK_S = 0.05


class FolderCorpus(Corpus):
    """The files of a folder, of which only those that changed are hashed.

    Args:
        folder: The folder.
        known: Hashes of unchanged files by path.
    Attributes:
        stopped: Whether reading ends at the next row.
    """

    def __init__(self, folder: Path, known: Mapping[str, str] = {}) -> None:
        super().__init__([folder], DocumentColumns(), leave_out_tables=True)
        self._hashes = dict(known)
        self._progress: _FileProgress | None = None
        self.stopped = False

    def counted(self, shown: Progress) -> Progress:
        """Returns what receives the progress of a build of these files."""
        self._progress = _FileProgress(shown, len(self._files))
        return self._progress

    def rows(self, bad_rows: BadRows) -> Iterator[SourceRow]:
        """Yields every row of every file; see `Corpus`."""
        places = {file.name: place for place, file in enumerate(self._files)}
        read = 0
        for row in super().rows(bad_rows):
            if self.stopped:
                raise NotReady("indexing was stopped")
            before, read = read, max(read, places.get(row.location.source, 0))
            if self._progress is not None:
                self._progress.add_files(read - before)
            yield row
        if self._progress is not None:
            self._progress.add_files(len(places) - read)

    def _hash(self, file: CorpusFile) -> str:
        if file.name not in self._hashes:
            # One that cannot be read is left out by the reader, with its reason.
            with contextlib.suppress(OSError):
                self._hashes[file.name] = sha256_of(file.path)
        return self._hashes.get(file.name, "")


class _FileProgress:
    """A `Progress` that counts files while they are read: how many there are is known."""

    def __init__(self, shown: Progress, files: int) -> None:
        self._shown = shown
        self._files = files
        self._reading = False

    def start(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
        """Begins a stage."""
        self._reading = stage == "read"
        if self._reading:
            total, unit = self._files, "files"
        self._shown.start(stage, total, unit, done)

    def advance(self, units: int) -> None:
        """Adds units of finished work."""
        if not self._reading:
            self._shown.advance(units)

    def add_files(self, files: int) -> None:
        """Adds files that were read."""
        self._shown.advance(files)

    def end(self, seconds: float) -> None:
        """Ends a stage that is finished."""
        self._shown.end(seconds)


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
    """
    hashes = {path: known.known_hash(path, states) for path in states}
    corpus = FolderCorpus(folder, {path: sha256 for path, sha256 in hashes.items() if sha256})
    if summary:
        print_skipped(corpus.skipped)
    store = Store.open(str(cache))
    async with EmbeddingClient(keeper.embedding, token=keeper.token, tls=TlsFiles()) as client:
        with VectorCache.open(client, cache / _VECTORS) as embedder:
            # Nobody compares recall here, and a question waits.
            work = asyncio.ensure_future(
                ensure_snapshot(
                    *(store, corpus, embedder),
                    max_bad_rows=MOST_BAD_ROWS,
                    golden_queries=0,
                    as_json=as_json,
                    summary=summary,
                    reported=known.left_out,
                    count=corpus.counted,
                )
            )
            try:
                result = await asyncio.shield(work)
            except asyncio.CancelledError:
                corpus.stopped = True
                work.cancel()
                await asyncio.wait((work,))
                raise
            if result is not None:
                embedder.forget_unused()
    current = store.alias_in_force(DEFAULT_COLLECTION).current
    await _until_served(keeper, current)
    await asyncio.to_thread(_prune, store)
    indexed = IndexedFiles(
        keeper=keeper.token,
        states=states,
        hashes={source.uri: source.sha256 for source in corpus.sources()},
        left_out=known.left_out if result is None else result.bad_row_sample,
    )
    return indexed, result


async def _until_served(keeper: Keeper, snapshot_id: str) -> None:
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
    raise NotReady(f"snapshot {snapshot_id} is not served{problem and ': '}{problem}")


def _prune(store: Store) -> None:
    """Removes snapshots of earlier states of the folder, but the last."""
    planned = retention.plan_prune(store, DEFAULT_COLLECTION, 0, min_age=timedelta())
    retention.prune(store, DEFAULT_COLLECTION, planned)
    # Nobody else builds here: this is what builds of earlier states left when they were stopped.
    shutil.rmtree(store.files.folder / DEFAULT_COLLECTION / ".build", ignore_errors=True)

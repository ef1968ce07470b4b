"""Files of this machine, indexed when they changed and served for the duration of a block."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nearline.clients import EmbeddingClient
from nearline.contract import DEFAULT_COLLECTION, Embedder
from nearline.counts import counted
from nearline.errors import InvalidRequest, NotFound, StoreError
from nearline.store.snapshot import Store
from nearline_cli.compose.change_log import open_change_log_if_any
from nearline_cli.inputs.skipped_files import print_skipped
from nearline_cli.local.process_plan import Layout, plan_processes
from nearline_cli.local.supervisor import StateChange, run_supervised
from nearline_cli.terminal import output
from nearline_cli.terminal.progress import open_progress

if TYPE_CHECKING:
    from index_builder.readers.corpus import Corpus

# Files and rows that cannot be read are left out, up to this many.
MOST_BAD_ROWS = 1_000
# Of services elsewhere: those of `serve_folder` are for this process alone.
_ELSEWHERE = ("NEARLINE_TLS_", "NEARLINE_TOKEN", "NEARLINE_KEYS", "NEARLINE_READERS_ATTRIBUTE")


class Observers(NamedTuple):
    """Callbacks for changes of the state of a process, and for each line that it logs."""

    change: Callable[[StateChange], None]
    line: Callable[[str, str], None]


@contextlib.asynccontextmanager
async def serve_folder(folder: Path, observers: Observers, *, as_json: bool) -> AsyncIterator[str]:
    """Yields the address of services that answer from the files of a folder.

    The index is in the user's cache, and is built again if a file changed.

    Raises:
        InvalidRequest: There is no folder, or no file of a known type in it.
        StoreError: The cache cannot be written.
    """
    # Imported late: pyarrow is needed for a build only.
    from index_builder.readers.columns import DocumentColumns
    from index_builder.readers.corpus import Corpus

    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise InvalidRequest(
            f"--folder {folder} is not a folder; name one with your files", field="folder"
        )
    corpus = Corpus([folder], DocumentColumns(), leave_out_tables=True)
    print_skipped(corpus.skipped)
    for name in [name for name in os.environ if name.startswith(_ELSEWHERE)]:
        del os.environ[name]
    store = Store.open(str(_cache_of(folder)))
    layout = Layout(store=store, shards=1, port=0, embedding_port=0, generation_port=0, redis="")
    with plan_processes(layout) as processes:
        async with (
            run_supervised([processes.embedding], *observers),
            EmbeddingClient(processes.embedding[0].address) as client,
        ):
            with await asyncio.to_thread(_locked, Path(store.url)):
                # Nobody compares recall here, and a question waits.
                await ensure_snapshot(
                    *(store, corpus, client),
                    max_bad_rows=MOST_BAD_ROWS,
                    golden_queries=0,
                    as_json=as_json,
                )
                await asyncio.to_thread(_prune, store)
            stage = (*processes.routers, *processes.generation)
            async with run_supervised([stage], *observers):
                yield processes.address


async def ensure_snapshot(
    store: Store,
    corpus: Corpus,
    embedder: Embedder,
    *,
    shards: int = 1,
    redis: str = "",
    max_bad_rows: int = 0,
    golden_queries: int = 200,
    as_json: bool,
) -> None:
    """Builds a snapshot, unless the current one has these files and this model.

    Args:
        store: Where the snapshot is.
        corpus: The files.
        embedder: The embedding service.
        shards: Number of shards.
        redis: URL of the Redis that holds live changes, which are kept. Optional.
        max_bad_rows: Number of malformed rows and damaged files to leave out.
        golden_queries: Number of queries whose exact results are stored, to measure recall.
        as_json: Whether to show no progress.
    """
    fingerprint = (await embedder.info()).fingerprint
    sources = await asyncio.to_thread(corpus.sources)
    with contextlib.suppress(NotFound):
        current = store.alias_in_force(DEFAULT_COLLECTION).current
        manifest = store.manifest(DEFAULT_COLLECTION, current)
        built = [(source.uri, source.sha256) for source in manifest.sources]
        same = built == [(source.uri, source.sha256) for source in sources]
        # A snapshot of an older version may lack the word index.
        whole = manifest.HasField("lexical") and manifest.embedder.fingerprint == fingerprint
        if same and whole:
            output.print_note(f"reusing snapshot {current}: same files, same model")
            return
    # Imported late: pyarrow and faiss are needed for a build only.
    from index_builder.options.build_options import BuildOptions
    from index_builder.pipeline.builder import build_corpus

    wanted = BuildOptions(
        store=store.url, shards=shards, max_bad_rows=max_bad_rows, golden_queries=golden_queries
    )
    async with open_change_log_if_any(store.url, DEFAULT_COLLECTION, redis) as log:
        with open_progress(as_json) as shown:
            result = await build_corpus(corpus, wanted, embedder, shown, log)
    recall = f", recall@10 {result.recall_at_10:.3f} against an exact scan"
    output.print_note(
        f"snapshot {result.snapshot_id}: {counted(result.documents, 'document')} of "
        f"{counted(len(sources), 'file')} in {counted(shards, 'shard')}"
        f"{recall if golden_queries else ''}"
    )
    for one in result.lists:
        output.print_note(output.escaped(str(one)))
    if result.bad_rows:
        bad = counted(result.bad_rows, "file or row", "files or rows")
        output.print_note(f"left out {bad} that cannot be read, for example:")
        for row in result.bad_row_sample:
            output.print_note(f"  {row}")


def _cache_of(folder: Path) -> Path:
    import platformdirs

    given = os.environ.get("NEARLINE_CACHE_DIR", "") or platformdirs.user_cache_dir("nearline")
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(given).expanduser() / "folders" / digest


@contextlib.contextmanager
def _locked(store: Path) -> Iterator[None]:
    """Lets one process at a time index a folder; the next one finds the index."""
    try:
        store.mkdir(parents=True, exist_ok=True)
        lock = os.open(store / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreError(
            f"{store} cannot be written: {error.strerror}; set NEARLINE_CACHE_DIR to a folder that "
            "can"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _prune(store: Store) -> None:
    """Removes snapshots of earlier states of the folder, but the last."""
    from retrieval.snapshots import retention

    planned = retention.plan_prune(store, DEFAULT_COLLECTION, 0)
    retention.prune(store, DEFAULT_COLLECTION, planned)

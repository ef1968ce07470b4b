"""Files of this machine, indexed when they changed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from typing import TYPE_CHECKING

from nearline.contract import DEFAULT_COLLECTION, Embedder
from nearline.counts import counted
from nearline.errors import NotFound
from nearline.store.snapshot import Store
from nearline_cli.compose.change_log import open_recorded
from nearline_cli.terminal import output
from nearline_cli.terminal.progress import open_progress

if TYPE_CHECKING:
    from index_builder.pipeline.build_result import BuildResult
    from index_builder.readers.corpus import Corpus


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
    summary: bool = True,
    reported: Collection[str] = (),
) -> BuildResult | None:
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
        summary: Whether to print what was built.
        reported: Malformed rows and damaged files that were reported before.
    Returns: The result of the build; None if there was nothing to build.
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
            if summary:
                output.print_note(f"reusing snapshot {current}: same files, same model")
            return None
    # Imported late: pyarrow and faiss are needed for a build only.
    from index_builder.options.build_options import BuildOptions
    from index_builder.pipeline.builder import build_corpus

    wanted = BuildOptions(
        store=store.url, shards=shards, max_bad_rows=max_bad_rows, golden_queries=golden_queries
    )
    async with open_recorded(store.url, DEFAULT_COLLECTION, redis) as recorded:
        with open_progress(as_json or not summary) as shown:
            result = await build_corpus(corpus, wanted, embedder, shown, recorded.changes)
    if summary:
        recall = f", recall@10 {result.recall_at_10:.3f} against an exact scan"
        output.print_note(
            f"snapshot {result.snapshot_id}: {counted(result.documents, 'document')} of "
            f"{counted(len(sources), 'file')} in {counted(shards, 'shard')}"
            f"{recall if golden_queries else ''}"
        )
        for one in result.lists:
            output.print_note(output.escaped(str(one)))
    if new := [row for row in result.bad_row_sample if row not in reported]:
        bad = counted(result.bad_rows, "file or row", "files or rows")
        output.print_note(f"left out {bad} that cannot be read, for example:")
        for row in new:
            output.print_note(output.escaped(f"  {row}"))
    return result

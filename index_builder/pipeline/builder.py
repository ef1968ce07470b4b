"""Entry points of a build, for documents in memory and for files."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import chain
from typing import TYPE_CHECKING

from index_builder.documents.records import SourceCount, SourceLocation, SourceRow
from index_builder.execution.executor import Executor, LocalExecutor
from index_builder.execution.progress import Progress, StageClock
from index_builder.lineage.lineage import Lineage, trace_lineage
from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.build_result import BuildResult
from index_builder.pipeline.build_run import BuildRun, Reader
from index_builder.pipeline.work_folder import OUTDATED, locked, work_folder, work_key
from index_builder.pipeline.work_mover import open_work, remove_quietly
from nearline.contract import Embedder, EmbedderInfo, Item
from nearline.retry import retry_while_unavailable
from nearline.store.work import BuildWork
from retrieval.changelog.change_log import ChangeLog
from retrieval.changelog.holds import held_log

if TYPE_CHECKING:
    from index_builder.readers.corpus import Corpus


async def build_snapshot(
    documents: Iterable[Item],
    options: BuildOptions,
    embedder: Embedder | None = None,
    progress: Progress | None = None,
    log: ChangeLog | None = None,
) -> BuildResult:
    """Builds and publishes a snapshot of documents in memory; a killed build cannot be resumed.

    Args:
        documents: Read once, in order. If the first document has a vector, all documents need one
            with the same number of components; a document with a vector is one chunk, and its text
            may be empty.
        options: Options of the build.
        embedder: Embeds documents without vectors; not called if the documents have vectors.
        progress: Optional; receives the progress of stages.
        log: The change log of the collection, if it has one.
    Raises: InvalidRequest: a bad option, document or factory string, a duplicate id; the collection
        has a change log, but `log` is None. StoreError: no space or no permission. Errors of the
        embedder and of `trace_lineage`.
    """
    options.check()
    remaining = iter(documents)
    ahead = [] if (first := next(remaining, None)) is None else [first]
    numbered = enumerate(chain(ahead, remaining), start=1)
    rows = (SourceRow(SourceLocation("document", number), item) for number, item in numbered)
    sources = [SourceCount(uri="document")]
    lineage = await trace_lineage(options, sources, log)
    run = BuildRun(
        lambda bad_rows: rows,
        sources,
        options,
        embedder,
        await _fetch_info(embedder),
        StageClock(progress),
        require_vectors=lineage is not None and first is not None and first.vector is not None,
        lineage=lineage,
    )
    async with _held(lineage):
        with locked(work_folder(options, secrets.token_hex(8)), keep=False) as folder:
            return await run.run(folder)


async def build(
    reader: Reader,
    sources: Sequence[SourceCount],
    options: BuildOptions,
    embedder: Embedder | None = None,
    progress: Progress | None = None,
    *,
    reading: Sequence[str] = (),
    require_vectors: bool = False,
    log: ChangeLog | None = None,
    inherit: bool = False,
    executor: Executor | None = None,
) -> BuildResult:
    """Builds and publishes a snapshot of files; the same call resumes a killed build.

    Args:
        reader: Yields the rows.
        sources: Sources of the rows, with hashes; their counts are filled in.
        options: Options of the build.
        embedder: Embeds documents without vectors.
        progress: Optional; receives the progress of stages.
        reading: Settings of the reader, to distinguish builds of the same files.
        require_vectors: Whether every row must bring a vector.
        log: The change log of the collection, if it has one.
        inherit: Inherit fusion weight and answer calibration from the previous snapshot if it has
            the same model.
        executor: Runs the embedding; None uses this process.
    Raises: As `build_snapshot`. Conflict: the same build is running, or the snapshot to merge into
        is no longer current.
    """
    options.check()
    info = await _fetch_info(embedder)
    clock = StageClock(progress)
    lineage = await trace_lineage(options, sources, log)
    reading = [*reading, *(lineage.key() if lineage else ())]
    key = work_key(options, sources, reading, info.fingerprint if info else "")
    run = BuildRun(
        reader,
        sources,
        options,
        embedder,
        info,
        clock,
        require_vectors=require_vectors,
        lineage=lineage,
        inherit=inherit,
        executor=executor or LocalExecutor(),
    )
    with locked(work_folder(options, key), keep=True) as folder:
        async with _held(lineage):
            run.work = await asyncio.to_thread(open_work, options, key)
            try:
                result = await run.run(folder)
            except OUTDATED:
                await _remove(run.work)
                raise
            await _remove(run.work)
            return result


async def build_corpus(
    corpus: Corpus,
    options: BuildOptions,
    embedder: Embedder | None = None,
    progress: Progress | None = None,
    log: ChangeLog | None = None,
    executor: Executor | None = None,
) -> BuildResult:
    """Builds and publishes a snapshot of the files of a corpus; see `build`."""
    options.check()
    sources = await asyncio.to_thread(corpus.sources)
    return await build(
        corpus.rows,
        sources,
        options,
        embedder,
        progress,
        reading=[*corpus.reading, repr(sorted(options.attributes.items()))],
        require_vectors=corpus.brings_vectors,
        log=log,
        executor=executor,
    )


def _held(lineage: Lineage | None) -> AbstractAsyncContextManager[None]:
    """Holds the change log during a build, if there is one."""
    if lineage is None or lineage.watermark is None:
        return contextlib.nullcontext()
    return held_log(lineage.store, lineage.collection, lineage.watermark)


async def _remove(work: BuildWork | None) -> None:
    if work is not None:
        await asyncio.to_thread(remove_quietly, work)


async def _fetch_info(embedder: Embedder | None) -> EmbedderInfo | None:
    return None if embedder is None else await retry_while_unavailable(embedder.info)

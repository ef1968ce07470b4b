"""The build: read, cut, embed, index, measure, publish."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from index_builder.documents.records import SourceCount, SourceLocation, SourceRow
from index_builder.execution.executor import Executor, LocalExecutor
from index_builder.execution.progress import NoProgress, Progress, StageClock
from index_builder.lineage.lineage import trace_lineage
from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.build_result import BuildResult
from index_builder.pipeline.build_run import BuildRun, Reader
from index_builder.pipeline.work_folder import locked, work_folder, work_key
from nearline.contract import Embedder, EmbedderInfo, Item
from nearline.retry import retry_while_unavailable
from retrieval.changelog.change_log import ChangeLog

if TYPE_CHECKING:
    from index_builder.readers.corpus import Corpus


async def build_snapshot(
    documents: Iterable[Item],
    options: BuildOptions,
    embedder: Embedder | None = None,
    progress: Progress | None = None,
    log: ChangeLog | None = None,
) -> BuildResult:
    """Builds and publishes a snapshot of documents from memory; a killed build starts again.

    Args:
        documents: Read once, in order. Where the first has a vector, all need one of its dim:
            such a document is one chunk, and its text may be empty.
        options: What to make of them.
        embedder: Embeds documents without vectors; not asked where they have them.
        progress: Told of the stages; None: nobody is.
        log: The change log, where the collection has one.
    Raises: InvalidRequest: a bad option, document or factory string, an id twice; the collection
        has a change log, and none is given. StoreError: no space or no permission. What the
        embedder, and what `trace_lineage` raises.
    """
    options.check()
    left = iter(documents)
    ahead = [] if (first := next(left, None)) is None else [first]
    numbered = enumerate(chain(ahead, left), start=1)
    rows = (SourceRow(SourceLocation("document", number), item) for number, item in numbered)
    sources = [SourceCount(uri="document")]
    lineage = await trace_lineage(options, sources, log)
    run = BuildRun(
        lambda bad_rows: rows,
        sources,
        options,
        embedder,
        await _fetch_info(embedder),
        StageClock(progress or NoProgress()),
        require_vectors=lineage is not None and first is not None and first.vector is not None,
        lineage=lineage,
    )
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
    """Builds and publishes a snapshot of files; the same call goes on with what a kill left.

    Args:
        reader: Gives the rows.
        sources: What is read, with hashes; counts are filled in.
        options: What to make of it.
        embedder: Embeds documents without vectors.
        progress: Told of the stages; None: nobody is.
        reading: How the reader reads, to tell apart builds of the same files.
        require_vectors: Every row must bring a vector.
        log: The change log, where the collection has one.
        inherit: Take over from the snapshot before how legs are fused and answers chosen, where it
            is of the same model.
        executor: Embeds; None: this process does.
    Raises: as `build_snapshot`. Conflict: the same build is running; or another snapshot became
        current than the one that was merged into.
    """
    options.check()
    info = await _fetch_info(embedder)
    clock = StageClock(progress or NoProgress())
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
        return await run.run(folder)


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


async def _fetch_info(embedder: Embedder | None) -> EmbedderInfo | None:
    return None if embedder is None else await retry_while_unavailable(embedder.info)

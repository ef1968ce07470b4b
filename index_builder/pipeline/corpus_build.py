"""Builds a snapshot from the files of a corpus."""

from __future__ import annotations

import asyncio

from index_builder.execution.executor import Executor
from index_builder.execution.progress import Progress
from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.build_result import BuildResult
from index_builder.pipeline.builder import build
from index_builder.readers.corpus import Corpus
from nearline.contract import Embedder
from retrieval.changelog.change_log import ChangeLog


async def build_corpus(
    corpus: Corpus,
    options: BuildOptions,
    embedder: Embedder | None = None,
    progress: Progress | None = None,
    log: ChangeLog | None = None,
    executor: Executor | None = None,
) -> BuildResult:
    """Builds and publishes a snapshot of files; the same call goes on with what a kill left.

    Args:
        corpus: What to read.
        options: What to make of it.
        embedder: Embeds the texts; not needed where the corpus brings vectors.
        progress: Told of the stages; None: nobody is.
        log: The change log, where the collection has one.
        executor: Embeds; None: this process does.
    Raises: InvalidRequest, StoreError, Conflict; what the embedder and `trace` raise.
    """
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

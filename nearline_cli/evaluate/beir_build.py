"""Builds a data set in BEIR layout in a temporary store, for `nearline eval`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nearline.clients import EmbeddingClient
from nearline.counts import counted
from nearline_cli.terminal import output
from nearline_cli.terminal.progress import open_progress

if TYPE_CHECKING:
    from index_builder.evaluation.retrieval_metrics import JudgedDataset
    from index_builder.pipeline.build_result import BuildResult
    from index_builder.readers.columns import DocumentColumns

_UNLIMITED = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """The build of a data set and its embedding service; if empty, one is started.

    columns: Columns of the corpus; if None, those of BEIR. popularity: See `BuildOptions`.
    judged: Judgements that tune the weight of hybrid search. If None, the shipped weight is used.
    train_reranker: Minutes of training of a reranker on them; 0 for none.
    """

    shards: int
    factory: str = "auto"
    chunk_tokens: int = 240
    overlap_sentences: int = 1
    embedding: str = ""
    language: str = "english"
    judged: JudgedDataset | None = None
    train_reranker: float = 0.0
    columns: DocumentColumns | None = None
    popularity: Mapping[str, float] | None = None


async def build_dataset(
    store: str, corpus: Path, plan: BuildPlan, client: EmbeddingClient, as_json: bool
) -> BuildResult:
    """Builds and publishes a snapshot; unreadable documents are reported and left out.

    Args:
        store: Folder of the store.
        corpus: File in the format of BEIR's corpus.jsonl.
        plan: What to build.
        client: Client of the embedding service.
        as_json: Whether standard output is reserved for JSON.
    """
    from index_builder.options.build_options import BuildOptions, ChunkOptions, IndexOptions
    from index_builder.pipeline.builder import build_corpus
    from index_builder.readers.columns import DocumentColumns
    from index_builder.readers.corpus import Corpus
    from nearline_cli.compose.reranker_trainer import make_reranker_trainer

    wanted = BuildOptions(
        store=store,
        shards=plan.shards,
        chunks=ChunkOptions(max_tokens=plan.chunk_tokens, overlap_sentences=plan.overlap_sentences),
        index=IndexOptions(factory=plan.factory),
        language=plan.language,
        judged=plan.judged,
        popularity=plan.popularity,
        # Data sets in this layout contain documents with only a title, or with nothing.
        title_only=True,
        max_bad_rows=_UNLIMITED,
    )
    wanted.check()
    if plan.train_reranker and plan.judged is not None:
        trainer = make_reranker_trainer(plan.judged, client, plan.train_reranker)
        wanted = replace(wanted, train_reranker=trainer)
    with open_progress(as_json) as progress:
        built = await build_corpus(
            Corpus([corpus], plan.columns or DocumentColumns()), wanted, client, progress
        )
    if built.bad_rows:
        output.console(error=True).print(
            f"left out {counted(built.bad_rows, 'document')}, for example {built.bad_row_sample[0]}"
        )
    return built

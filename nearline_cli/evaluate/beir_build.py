"""Builds what `nearline eval` measures: a data set in BEIR layout, in a store of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nearline.clients import EmbeddingClient
from nearline_cli.terminal import output
from nearline_cli.terminal.progress import open_progress

if TYPE_CHECKING:
    from index_builder.evaluation.retrieval_metrics import JudgedDataset
    from index_builder.pipeline.build_result import BuildResult

_ANY = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """What to build, and with which embedding service; empty: one of its own.

    judged: What to tune the weight of hybrid search on; None: the default weight.
    """

    shards: int
    factory: str = "auto"
    chunk_tokens: int = 240
    overlap_sentences: int = 1
    embedding: str = ""
    language: str = "english"
    judged: JudgedDataset | None = None


async def build_dataset(
    store: str, corpus: Path, plan: BuildPlan, client: EmbeddingClient, as_json: bool
) -> BuildResult:
    """Builds and publishes; documents that cannot be read are left out, and said.

    Args:
        store: Folder of the store.
        corpus: File in the layout of BEIR's corpus.jsonl.
        plan: What to build.
        client: The embedding service.
        as_json: Keep standard output for the figures.
    """
    from index_builder.options.build_options import BuildOptions, ChunkOptions, IndexOptions
    from index_builder.pipeline.builder import build_corpus
    from index_builder.readers.columns import DocumentColumns
    from index_builder.readers.corpus import Corpus

    wanted = BuildOptions(
        store=store,
        shards=plan.shards,
        chunks=ChunkOptions(max_tokens=plan.chunk_tokens, overlap_sentences=plan.overlap_sentences),
        index=IndexOptions(factory=plan.factory),
        language=plan.language,
        judged=plan.judged,
        # Data sets in this layout have documents that are a title alone, or nothing at all.
        title_only=True,
        max_bad_rows=_ANY,
    )
    wanted.check()
    with open_progress(as_json) as shown:
        built = await build_corpus(Corpus([corpus], DocumentColumns()), wanted, client, shown)
    if built.bad_rows:
        output.console(error=True).print(
            f"{built.bad_rows} documents are left out, for example {built.bad_row_sample[0]}",
            markup=False,
        )
    return built

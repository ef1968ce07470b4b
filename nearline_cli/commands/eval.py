"""`nearline eval`: measures quality against judgements, through the real services."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearline.contract import SearchMode
from nearline.errors import InvalidRequest
from nearline_cli.compose.build_context import open_embedder
from nearline_cli.evaluate import clicks, names, rag, recommendation
from nearline_cli.evaluate.beir_build import BuildPlan, build_dataset
from nearline_cli.evaluate.retrieval_quality import score_router
from nearline_cli.local.processes import retrieval_process
from nearline_cli.terminal import options, output
from nearline_cli.terminal.option_groups import add_command

if TYPE_CHECKING:
    from index_builder.evaluation.retrieval_metrics import JudgedDataset

app = typer.Typer(help="Measure quality against judgements.", no_args_is_help=True)
app.command("rag")(rag.rag)
app.command("clicks")(clicks.clicks)
add_command(app, recommendation.recommend)
add_command(app, names.names)


@app.command()
def retrieval(
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="Folder in BEIR layout: corpus.jsonl, queries.jsonl, qrels/."
        ),
    ],
    split: Annotated[str, typer.Option(help="Judgements to measure on: qrels/SPLIT.tsv.")] = "test",
    mode: Annotated[SearchMode, typer.Option(help="Search mode.")] = SearchMode.DENSE,
    shards: Annotated[int, typer.Option(metavar="N", help="Number of shards to build.")] = 4,
    index: Annotated[
        str, typer.Option(metavar="FACTORY", help="FAISS factory string of the index to build.")
    ] = "auto",
    chunk_tokens: Annotated[
        int,
        typer.Option(metavar="N", help="Maximum tokens of a chunk; 0: one vector per document."),
    ] = 240,
    overlap_sentences: Annotated[
        int, typer.Option(metavar="N", help="Sentences that the next chunk repeats.")
    ] = 1,
    language: Annotated[
        str,
        typer.Option(help="Language of the stemmer and the stop words; none: neither."),
    ] = "english",
    tune_on: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder in BEIR layout whose judgements tune the weight of hybrid search. "
            "\\[default: the shipped weight]",
        ),
    ] = None,
    tune_split: Annotated[
        str, typer.Option(metavar="SPLIT", help="Judgements to tune on: qrels/SPLIT.tsv.")
    ] = "train",
    train_reranker: options.TrainRerankerOption = 0.0,
    rerank: options.RerankOption = None,
    embedding: options.EmbeddingOption = "",
    address: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Router that already serves the corpus. \\[default: build and serve it]",
        ),
    ] = "",
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Measure nDCG@10, recall@100 and MRR@10 of text queries over gRPC.

    For example: nearline eval retrieval --data scifact --mode hybrid

    Documents are split into chunks as in `nearline build`. Published figures of a model are mostly
    for one vector per document: use --chunk-tokens 0 to compare.
    """
    from index_builder.evaluation import retrieval_metrics
    from nearline_cli.compose.reranker_trainer import check_queries

    if tune_on and address:
        raise InvalidRequest(
            "--tune-on applies to a build, but --address names a running router; leave out one of "
            "them",
            field="tune_on",
        )
    found = retrieval_metrics.load(data, split)
    judged = retrieval_metrics.load(tune_on, tune_split) if tune_on else None
    if train_reranker:
        check_queries(judged)

    async def run() -> dict[str, object]:
        if address:
            return await score_router(address, collection, found, mode, rerank)
        plan = BuildPlan(
            shards=shards,
            factory=index,
            chunk_tokens=chunk_tokens,
            overlap_sentences=overlap_sentences,
            embedding=embedding,
            language=language,
            judged=judged,
            train_reranker=train_reranker,
        )
        return await _build_and_ask(found, mode, plan, rerank, as_json)

    began = time.monotonic()
    measured = asyncio.run(run())
    record = {"mode": mode.value, "split": split, **measured}
    record["seconds"] = round(time.monotonic() - began, 1)
    output.print_figures(record, as_json=as_json)


async def _build_and_ask(
    found: JudgedDataset, mode: SearchMode, plan: BuildPlan, rerank: int | None, as_json: bool
) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="nearline-eval-") as folder:
        async with contextlib.AsyncExitStack() as stack:
            # It runs the reranker of the snapshot, if there is one.
            embedder = open_embedder(plan.embedding, quiet=as_json, store=folder)
            client = await stack.enter_async_context(embedder)
            built = await build_dataset(folder, found.corpus, plan, client, as_json)
            router = await stack.enter_async_context(
                retrieval_process(Path(folder), embedding=client.address)
            )
            measured = await score_router(
                router.address, options.DEFAULT_COLLECTION, found, mode, rerank
            )
            if built.tuned_ndcg_at_10 is not None:
                measured["tuned_ndcg@10"] = round(built.tuned_ndcg_at_10, 4)
            return measured | {"bad_rows": built.bad_rows}

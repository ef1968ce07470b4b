"""`nearline eval`: quality against judgements, through the real services."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearline.cli import eval_rag, eval_recommend, options, output
from nearline.cli.building import embedder
from nearline.cli.eval_build import Plan, build
from nearline.cli.processes import retrieval_process
from nearline.clients import AdminClient, RetrievalClient
from nearline.contract import Query, SearchMode, SearchOptions
from nearline.errors import InvalidRequest

if TYPE_CHECKING:
    from index_builder.quality import DataSet

app = typer.Typer(help="Measure quality against judgements.", no_args_is_help=True)
app.command("rag")(eval_rag.rag)
app.command("recommend")(eval_recommend.recommend)
_K = 100
_QUERIES_PER_CALL = 32
_TIMEOUT_S = 120.0


@app.command()
def retrieval(
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="Folder in BEIR layout: corpus.jsonl, queries.jsonl, qrels/."
        ),
    ],
    split: Annotated[str, typer.Option(help="Which judgements: qrels/SPLIT.tsv.")] = "test",
    mode: Annotated[SearchMode, typer.Option(help="How candidates are found.")] = SearchMode.DENSE,
    shards: Annotated[int, typer.Option(metavar="N", help="Shards of the index built.")] = 4,
    index: Annotated[
        str, typer.Option(metavar="FACTORY", help="FAISS factory string of the index built.")
    ] = "auto",
    chunk_tokens: Annotated[
        int, typer.Option(metavar="N", help="Most tokens of a chunk; 0: one vector per document.")
    ] = 240,
    overlap_sentences: Annotated[
        int, typer.Option(metavar="N", help="Sentences that the next chunk repeats.")
    ] = 1,
    language: Annotated[
        str,
        typer.Option(help="Of the stemmer and the stop words of lexical search; none: neither."),
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
        str, typer.Option(metavar="SPLIT", help="Which judgements to tune on: qrels/SPLIT.tsv.")
    ] = "train",
    embedding: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Embedding service. \\[default: one is started]"),
    ] = "",
    address: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Router that serves the corpus already. \\[default: build and serve it]",
        ),
    ] = "",
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Measure nDCG@10, recall@100 and MRR@10 over gRPC, with text queries.

    Documents are cut as `nearline build` cuts them. Published figures of a model are mostly those
    of one vector per document, cut at what the model reads: --chunk-tokens 0.
    """
    from index_builder import quality

    if tune_on and address:
        raise InvalidRequest(
            "--tune-on tunes what is built, and with --address nothing is; leave out one of them",
            field="tune_on",
        )
    found = quality.load(data, split)
    judged = quality.load(tune_on, tune_split) if tune_on else None

    async def run() -> dict[str, object]:
        if address:
            return await _ask(address, collection, found, mode)
        plan = Plan(
            shards=shards,
            factory=index,
            chunk_tokens=chunk_tokens,
            overlap_sentences=overlap_sentences,
            embedding=embedding,
            language=language,
            judged=judged,
        )
        return await _build_and_ask(found, mode, plan, as_json)

    began = time.monotonic()
    measured = asyncio.run(run())
    record = {"mode": mode.value, "split": split, **measured}
    record["seconds"] = round(time.monotonic() - began, 1)
    if as_json:
        output.print_json(record)
    else:
        output.print_table(("figure", "value"), list(record.items()))


async def _build_and_ask(
    found: DataSet, mode: SearchMode, plan: Plan, as_json: bool
) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="nearline-eval-") as folder:
        async with contextlib.AsyncExitStack() as stack:
            client = await stack.enter_async_context(embedder(plan.embedding, quiet=as_json))
            built = await build(folder, found.corpus, plan, client, as_json)
            router = await stack.enter_async_context(
                retrieval_process(Path(folder), embedding=client.address)
            )
            measured = await _ask(router.address, options.DEFAULT_COLLECTION, found, mode)
            if built.tuned_ndcg_at_10 is not None:
                measured["tuned_ndcg@10"] = round(built.tuned_ndcg_at_10, 4)
            return measured | {"bad_rows": built.bad_rows}


async def _ask(
    address: str, collection: str, found: DataSet, mode: SearchMode
) -> dict[str, object]:
    """Asks every query, and scores the answers."""
    from index_builder import quality

    wanted = SearchOptions(k=_K, mode=mode, require_full_coverage=True)
    ids = list(found.queries)
    rankings: dict[str, list[str]] = {}
    async with RetrievalClient(address) as client, AdminClient(address) as admin:
        manifest = await admin.snapshot(collection)
        for first in range(0, len(ids), _QUERIES_PER_CALL):
            asked = ids[first : first + _QUERIES_PER_CALL]
            reply = await client.search_batch(
                [Query(text=found.queries[query]) for query in asked],
                wanted,
                collection=collection,
                timeout_s=_TIMEOUT_S,
            )
            for query, result in zip(asked, reply.results, strict=True):
                rankings[query] = [hit.id for hit in result.hits]
    scores = quality.score(rankings, found.judgements)
    weight: dict[str, object] = {}
    if mode is SearchMode.HYBRID:
        weight["dense_weight"] = manifest.fusion.dense_weight
        weight["weight_origin"] = manifest.fusion.origin
    return {
        "queries": len(ids),
        **{name: round(value, 4) for name, value in scores.items()},
        "shards": len(manifest.shards),
        "documents": manifest.documents,
        "chunks": manifest.chunks,
        "chunk_tokens": manifest.chunking.max_tokens,
        "index": manifest.index_factory,
        "model": manifest.embedder.model,
        **weight,
    }

"""`nearline eval`: quality against judgements, through the real services."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearline.cli import options, output
from nearline.cli.build import progress
from nearline.cli.processes import embedding_process, retrieval_process
from nearline.clients import AdminClient, EmbeddingClient, RetrievalClient
from nearline.contract import Query, SearchMode, SearchOptions
from nearline.errors import InvalidRequest

if TYPE_CHECKING:
    from index_builder.quality import DataSet

app = typer.Typer(help="Measure quality against judgements.", no_args_is_help=True)
_K = 100
_QUERIES_PER_CALL = 32
_TIMEOUT_S = 120.0
_ANY = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What to build, and with which embedding service; empty: one of its own.

    judged: What to tune the weight of hybrid search on; None: the default weight.
    """

    shards: int
    factory: str
    chunk_tokens: int
    overlap_sentences: int
    embedding: str
    language: str
    judged: DataSet | None


@app.callback()
def _root() -> None:
    """Keeps `retrieval` a command of its own while it is the only one."""


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
            "[default: the shipped weight]",
        ),
    ] = None,
    tune_split: Annotated[
        str, typer.Option(metavar="SPLIT", help="Which judgements to tune on: qrels/SPLIT.tsv.")
    ] = "train",
    embedding: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Embedding service. [default: one is started]"),
    ] = "",
    address: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Router that serves the corpus already. [default: build and serve it]",
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
        plan = _Plan(
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
    found: DataSet, mode: SearchMode, plan: _Plan, as_json: bool
) -> dict[str, object]:
    from index_builder.corpus import Corpus, build_corpus
    from index_builder.readers.mapping import Columns
    from index_builder.records import BuildOptions, ChunkOptions, IndexOptions

    with tempfile.TemporaryDirectory(prefix="nearline-eval-") as folder:
        wanted = BuildOptions(
            store=folder,
            shards=plan.shards,
            chunks=ChunkOptions(
                max_tokens=plan.chunk_tokens, overlap_sentences=plan.overlap_sentences
            ),
            index=IndexOptions(factory=plan.factory),
            language=plan.language,
            judged=plan.judged,
            # Data sets in this layout have documents that are a title alone, or nothing at all.
            title_only=True,
            max_bad_rows=_ANY,
        )
        wanted.check()
        corpus = Corpus([found.corpus], Columns())
        async with contextlib.AsyncExitStack() as stack:
            where = plan.embedding
            if not where:
                where = (await stack.enter_async_context(embedding_process())).address
            client = await stack.enter_async_context(EmbeddingClient(where))
            with progress(as_json) as shown:
                built = await build_corpus(corpus, wanted, client, shown)
            if built.bad_rows:
                output.console(error=True).print(
                    f"{built.bad_rows} documents are left out, for example "
                    f"{built.bad_row_sample[0]}",
                    markup=False,
                )
            router = await stack.enter_async_context(
                retrieval_process(Path(folder), embedding=where)
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

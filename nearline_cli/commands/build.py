"""`nearline build`: documents, or vectors, to a published snapshot."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearline.errors import InvalidRequest
from nearline.snapshot import Store
from nearline_cli.compose import calibration, change_log, release_gate, retraining
from nearline_cli.compose.build_context import (
    ExecutorOption,
    RayAddressOption,
    command_executor,
    open_embedder,
)
from nearline_cli.compose.change_log import with_recorded_users
from nearline_cli.inputs import interactions as interacting
from nearline_cli.terminal import options, output
from nearline_cli.terminal.progress import open_progress
from nearline_cli.views import build_summary

if TYPE_CHECKING:
    from index_builder.execution.executor import Executor
    from index_builder.execution.progress import Progress
    from index_builder.pipeline.build_result import BuildResult
    from retrieval.changelog.redis_log import RedisLog


def build(
    context: typer.Context,
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|DIR",
            help="What to read: .jsonl .csv .tsv .parquet .txt .md .html .pdf, folders of them, or "
            "one .npy matrix of vectors; may be repeated. With --learn or --interactions it may be "
            "left out: the documents that are served stay, as they were built.",
        ),
    ] = None,
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    shards: Annotated[int, typer.Option(metavar="N", help="Shards, 1..64.")] = 1,
    index: Annotated[
        str,
        typer.Option(
            metavar="FACTORY",
            help="FAISS factory string; auto: Flat up to 20,000 vectors, else HNSW32,Flat.",
        ),
    ] = "auto",
    target_recall: Annotated[
        float,
        typer.Option(
            metavar="RATIO",
            help="With --index auto: measure indexes on a sample of your vectors, and take the "
            "fastest that reaches this recall@10. \\[default: by size]",
            show_default=False,
        ),
    ] = 0.0,
    max_memory: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            help="With --index auto: measure, and take no index larger than this, such as 2GiB.",
        ),
    ] = "",
    refine_factor: Annotated[
        float,
        typer.Option(
            metavar="X",
            help="Candidates that a refine stage scores again per place asked for. \\[default: as "
            "its codes need]",
            show_default=False,
        ),
    ] = 0.0,
    metric: Annotated[str, typer.Option(help="cosine or inner_product.")] = "cosine",
    ef_construction: Annotated[
        int, typer.Option(metavar="N", help="Width of the graph search while building HNSW.")
    ] = 200,
    ef_search: Annotated[
        int, typer.Option(metavar="N", help="Width of the graph search where a request names none.")
    ] = 64,
    nprobe: Annotated[
        int,
        typer.Option(
            metavar="N", help="Lists probed where a request names none; 0: a 16th, at least 8."
        ),
    ] = 0,
    id_column: options.IdColumnOption = "",
    title_column: options.TitleColumnOption = "",
    text_column: options.TextColumnOption = "",
    vector_column: options.VectorColumnOption = "",
    attribute_columns: Annotated[
        str, typer.Option(metavar="NAMES", help="Columns to keep, with commas; *: all others.")
    ] = "*",
    attribute: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:KIND",
            help="Kind of an attribute: string, int, double, bool or time; may be repeated. "
            "\\[default: found in the documents]",
        ),
    ] = None,
    chunk_tokens: Annotated[
        int,
        typer.Option(metavar="N", help="Most tokens embedded at once, with title; 0: do not cut."),
    ] = 240,
    overlap_sentences: Annotated[
        int, typer.Option(metavar="N", help="Sentences that the next chunk repeats.")
    ] = 1,
    max_bad_rows: Annotated[
        int, typer.Option(metavar="N", help="Malformed rows left out rather than ending the build.")
    ] = 0,
    allow_title_only: Annotated[
        bool, typer.Option("--allow-title-only", help="Take documents without text by their title.")
    ] = False,
    language: Annotated[
        str,
        typer.Option(help="Of the stemmer and the stop words of lexical search; none: neither."),
    ] = "english",
    no_lexical: Annotated[
        bool, typer.Option("--no-lexical", help="Do not index words; search by vector alone.")
    ] = False,
    tune_on: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Folder in BEIR layout whose judgements tune the weight of hybrid search. "
            "\\[default: the shipped weight]",
        ),
    ] = "",
    tune_split: Annotated[
        str, typer.Option(metavar="SPLIT", help="Which judgements to tune on: qrels/SPLIT.tsv.")
    ] = "train",
    calibrate_on: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder with labelled questions, from which it is learned which sentences answer "
            "and when nothing does: claims_SPLIT.jsonl with abstracts.jsonl, as SciFact has them, "
            "or questions_SPLIT.jsonl, as SQuAD has them. \\[default: as shipped, uncalibrated]",
        ),
    ] = None,
    calibrate_split: Annotated[
        str, typer.Option(metavar="SPLIT", help="Which labels to calibrate on.")
    ] = "train",
    target_risk: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            max=1.0,
            help="With --calibrate-on: share of answers without evidence that is allowed.",
        ),
    ] = 0.15,
    interactions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What users did with the documents, to recommend by: .csv, .csv.gz, .tsv or "
            ".parquet. \\[default: none; a build that merges, or has a change log, keeps what "
            "was learned before]",
        ),
    ] = None,
    learn: retraining.LearnOption = None,
    keep_days: retraining.KeepDaysOption = 0,
    user_column: interacting.UserColumnOption = interacting.USER,
    item_column: interacting.ItemColumnOption = interacting.ITEM,
    time_column: interacting.TimeColumnOption = interacting.TIME,
    kind_column: interacting.KindColumnOption = "",
    kind: interacting.KindOption = None,
    value_column: interacting.ValueColumnOption = "",
    min_per_user: interacting.MinPerUserOption = 1,
    min_per_item: interacting.MinPerItemOption = 1,
    max_per_user_day: interacting.MaxPerUserDayOption = 0,
    duplicates_within: interacting.DuplicatesWithinOption = 0.0,
    validate_on: Annotated[
        str,
        typer.Option(
            metavar="SPLIT",
            help="Interactions held out while it is chosen which models serve: last-n:N, "
            "first-n:N, loo, time:SHARE (of baskets the better one) or cold-users:SHARE. "
            "\\[default: last-n:5]",
        ),
    ] = "",
    golden_queries: Annotated[
        int, typer.Option(metavar="N", help="Sampled queries with exact answers.")
    ] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every sample.")] = 0,
    mode: Annotated[
        str,
        typer.Option(
            metavar="replace|merge",
            help="What becomes of documents that are served now and are not in the corpus: they go "
            "(replace), or stay (merge). Live changes later than the corpus stay in either case.",
        ),
    ] = "replace",
    as_of: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Place of the corpus among live changes, ISO 8601, UTC unless it says otherwise: "
            "what was changed after it wins. \\[default: when each file was last modified]",
        ),
    ] = "",
    redis: change_log.RedisOption = "",
    no_promote: Annotated[
        bool, typer.Option("--no-promote", help="Do not serve the snapshot yet.")
    ] = False,
    force_promote: release_gate.ForcePromoteOption = "",
    work_dir: Annotated[
        str,
        typer.Option(
            metavar="DIR", help="Where a killed build leaves its work. \\[default: store]"
        ),
    ] = "",
    embedding: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT", help="Embedding service. \\[default: one is started for the build]"
        ),
    ] = "",
    dimensions: Annotated[
        int,
        typer.Option(
            min=0,
            max=65536,
            metavar="N",
            help="Of the embedding service that is started: first numbers kept of each vector. "
            "\\[default: all, unless its settings say otherwise]",
            show_default=False,
        ),
    ] = 0,
    executor: ExecutorOption = "local",
    ray_address: RayAddressOption = "",
    as_json: output.JsonFlag = False,
) -> None:
    """Build a searchable snapshot of your documents, or of vectors that you bring.

    It is served once the release gate has judged it beside the one that is served now; what is
    refused is built, and stays in the store.

    Run the same command again after a kill: what was embedded is not embedded again.
    """
    from index_builder.interactions.cleanup import CleaningRules
    from index_builder.interactions.merge import NO_INTERACTIONS
    from index_builder.interactions.reader import InteractionColumns
    from index_builder.options.build_options import Mode
    from index_builder.options.training_options import TrainingOptions
    from index_builder.pipeline.builder import build_corpus
    from index_builder.pipeline.settings import IndexBuilderSettings
    from index_builder.pipeline.training_data import check_not_empty
    from index_builder.readers.corpus import Corpus
    from index_builder.releases.build_gate import check_promoted, gate_of_build

    chosen = IndexBuilderSettings.load(
        {
            "store": store,
            "collection": collection,
            "shards": shards,
            "index": index,
            "target_recall": target_recall,
            "max_memory": max_memory,
            "refine_factor": refine_factor,
            "metric": metric,
            "ef_construction": ef_construction,
            "ef_search": ef_search,
            "nprobe": nprobe,
            "id_column": id_column,
            "title_column": title_column,
            "text_column": text_column,
            "vector_column": vector_column,
            "attribute_columns": attribute_columns,
            "attributes": ",".join(attribute or ()),
            "chunk_tokens": chunk_tokens,
            "overlap_sentences": overlap_sentences,
            "max_bad_rows": max_bad_rows,
            "allow_title_only": allow_title_only,
            "lexical": not no_lexical,
            "language": language,
            "tune_on": tune_on,
            "tune_split": tune_split,
            "golden_queries": golden_queries,
            "seed": seed,
            "mode": mode,
            "as_of": as_of,
            "promote": not no_promote,
            "work_dir": work_dir,
            "embedding": embedding,
            "executor": executor,
            "ray_address": ray_address,
        }
    )
    wanted = replace(chosen.options(), gate=gate_of_build(force_promote))
    found = Corpus([Path(name) for name in corpus], chosen.columns()) if corpus else None
    if found is None:
        retraining.check_without_corpus(context)
        wanted = retraining.served_build_options(wanted)
    before = None
    if interactions is not None or learn is not None:
        adds = wanted.mode is Mode.MERGE if learn is None else learn
        before = retraining.served_behaviour(store, collection) if adds else None
        learning = retraining.training_options(
            interactions,
            InteractionColumns(user_column, item_column, time_column, kind_column, value_column),
            kind,
            CleaningRules(min_per_user, min_per_item, max_per_user_day, duplicates_within),
            before,
            TrainingOptions(
                interactions=NO_INTERACTIONS,
                adds=adds,
                keep_days=keep_days,
                validate_on=validate_on,
            ),
        )
        learning.check(seed)
        wanted = replace(wanted, learning=learning)
    elif told := retraining.given_interaction_options(context):
        raise InvalidRequest(
            f"{told} is about interactions, and none are named; add --interactions FILE, or "
            "--learn",
            field="interactions",
        )
    elif validate_on or keep_days:
        name, value = ("validate-on", validate_on) if validate_on else ("keep-days", keep_days)
        raise InvalidRequest(
            f"--{name} {value} has no interactions to go by; name a file with --interactions, or "
            "add --learn",
            field=name.replace("-", "_"),
        )
    # Before hours of embedding: labels that cannot be read, or are too few, end the build.
    labelled = (
        [] if calibrate_on is None else calibration.load_questions(calibrate_on, calibrate_split)
    )

    async def run() -> BuildResult:
        async with change_log.open_change_log_if_any(store, collection, redis) as log:
            with (
                command_executor(executor, ray_address, dimensions=dimensions) as doing,
                open_progress(as_json) as shown,
            ):
                return await make(shown, log, doing)

    async def make(shown: Progress, log: RedisLog | None, doing: Executor) -> BuildResult:
        made_of = wanted if log is None else await with_recorded_users(wanted, log)
        if made_of.learning is not None:
            check_not_empty(made_of.learning, before)
        if found is None:
            return await retraining.rebuild_served(
                made_of,
                chosen.embedding,
                shown,
                log,
                doing,
                quiet=as_json,
                dimensions=dimensions,
            )
        if found.brings_vectors:
            return await build_corpus(found, made_of, None, shown, log)
        async with open_embedder(
            chosen.embedding, quiet=as_json, dimensions=dimensions, store=store
        ) as client:
            hook = calibration.make_calibrator(labelled, client, target_risk) if labelled else None
            made_of = replace(made_of, calibrate=hook)
            return await build_corpus(found, made_of, client, shown, log, doing)

    try:
        result = asyncio.run(run())
    except KeyboardInterrupt:
        output.print_note("interrupted; the same command goes on from here")
        raise
    if as_json:
        output.print_json(result.record())
    else:
        build_summary.show_learning_summary(result)
        build_summary.show_build_summary(result, store)
    check_promoted(result, Store.open(store))

"""`nearline build`: turns documents, or vectors, into a published snapshot."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearline.errors import InvalidRequest
from nearline.store.snapshot import Store
from nearline_cli.compose import change_log, release_gate, retraining
from nearline_cli.compose.build_context import ExecutorOptions, command_executor, open_embedder
from nearline_cli.compose.calibration import CalibrationOptions, make_calibrator
from nearline_cli.inputs.interactions import InteractionOptions
from nearline_cli.inputs.skipped_files import print_skipped, skipped_record
from nearline_cli.terminal import options, output
from nearline_cli.terminal.option_groups import SettingsOptions
from nearline_cli.terminal.progress import open_progress
from nearline_cli.views import build_summary

if TYPE_CHECKING:
    from index_builder.execution.executor import Executor
    from index_builder.execution.progress import Progress
    from index_builder.pipeline.build_result import BuildResult

# The help lists these apart, by topic, after those that most builds need.
PANELS = {
    "Documents": "id_column title_column text_column vector_column attribute_columns attribute "
    "chunk_tokens overlap_sentences max_bad_rows allow_title_only mode as_of",
    "Words": "no_lexical language synonyms search_weight search_language",
    "Vectors": "embedding dimensions metric device shards index target_recall max_memory "
    "refine_factor ef_construction ef_search nprobe golden_queries seed",
    "Interactions": "user_column item_column time_column kind_column kind value_column "
    "min_per_user min_per_item max_per_user_day duplicates_within redis redis_users",
    "Training": "learn keep_days validate_on popularity_debias train_reranker tune_on tune_split "
    "calibrate_on calibrate_split target_risk",
    "Release gate": "force force_promote why",
    "Machines": "executor ray_address ray_gpu_share work_dir",
}
_SETTINGS = SettingsOptions(
    module="index_builder.pipeline.settings",
    name="IndexBuilderSettings",
    # Options of other commands, too, or of another form here; and settings of a batch job.
    omit=(
        *("corpus", "store", "collection", "attributes", "redis"),
        *("search_weights", "search_languages"),
        *("force_promote", "embedding", "executor", "ray_address", "ray_gpu_share"),
        *("threads", "log_level", "learn"),
    ),
    metavars={
        "device": "DEVICE",
        "index": "FACTORY",
        "target_recall": "RATIO",
        "max_memory": "SIZE",
        "refine_factor": "X",
        "id_column": "NAME",
        "title_column": "NAME",
        "text_column": "NAME",
        "vector_column": "NAME",
        "attribute_columns": "NAMES",
        "synonyms": "FILE",
        "tune_on": "DIR",
        "tune_split": "SPLIT",
        "as_of": "TIME",
        "work_dir": "DIR",
    },
    help={
        "lexical": "Do not index words; search by vector alone.",
        "promote": "Do not serve the snapshot yet.",
    },
)


def build(
    context: typer.Context,
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|DIR",
            help="Files to read: .jsonl .csv .tsv .parquet .txt .md .html .pdf, folders of them, "
            "or one .npy matrix of vectors; may be repeated. Optional with --learn, "
            "--interactions or --synonyms: the served documents then stay unchanged.",
        ),
    ] = None,
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    *,
    settings: Annotated[dict[str, Any], _SETTINGS],
    attribute: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:KIND",
            help="Kind of an attribute: string, int, double, bool or time, or string[], int[] and "
            "so on for lists; may be repeated. "
            "\\[default: inferred from the documents]",
        ),
    ] = None,
    search_weight: options.SearchWeightOption = None,
    search_language: options.SearchLanguageOption = None,
    train_reranker: options.TrainRerankerOption = 0.0,
    calibration: CalibrationOptions,
    learning: retraining.LearningOptions,
    reading: InteractionOptions,
    redis: change_log.RedisOption = "",
    forced: release_gate.ForceOptions,
    embedding: options.EmbeddingsOption = "",
    dimensions: Annotated[
        int,
        typer.Option(
            min=0,
            max=65536,
            metavar="N",
            help="Number of components of each vector that the started embedding service keeps. "
            "\\[default: all, unless its settings say otherwise]",
            show_default=False,
        ),
    ] = 0,
    executor: ExecutorOptions,
    as_json: output.JsonFlag = False,
) -> None:
    """Build a searchable snapshot of your documents, or of vectors that you bring.

    For example: nearline build --corpus docs/ --store .nearline/store

    The release gate compares the snapshot with the one in service, then promotes it. A snapshot
    that fails the gate stays in the store, but is not served.

    If a build is interrupted, run the same command again: documents that were embedded before are
    not embedded again.
    """
    from index_builder.indexes.faiss_writer import check_known
    from index_builder.indexes.shard_builder import find_device
    from index_builder.pipeline.builder import build_corpus
    from index_builder.pipeline.compaction import compaction_options
    from index_builder.pipeline.settings import IndexBuilderSettings
    from index_builder.pipeline.training_data import check_not_empty, with_recorded_users
    from index_builder.readers.corpus import Corpus
    from index_builder.releases.build_gate import gate_of_build
    from nearline_cli.compose.reranker_trainer import check_queries, make_reranker_trainer

    chosen = IndexBuilderSettings.load(
        {
            **settings,
            **executor._asdict(),
            "store": store,
            "collection": collection,
            "attributes": ",".join(attribute or ()),
            "search_weights": ",".join(search_weight or ()),
            "search_languages": ",".join(search_language or ()),
            "embedding": embedding,
        }
    )
    wanted = replace(chosen.options(), gate=gate_of_build(forced.reason()))
    documents = Corpus([Path(name) for name in corpus], chosen.columns()) if corpus else None
    if documents is not None and not as_json:
        print_skipped(documents.skipped)
    if documents is None:
        retraining.check_without_corpus(context)
        wanted = compaction_options(wanted)
    training = retraining.requested_training(context, learning, reading, wanted)
    if training.options is not None:
        wanted = replace(wanted, training=training.options)
    # Before a service is started.
    wanted.check()
    check_known(wanted.index.factory)
    find_device(wanted.device)
    if (
        documents is not None
        and documents.empty
        and collection not in Store.open(store).collections()
    ):
        raise InvalidRequest("the files of --corpus are empty; name others", field="corpus")
    # Before hours of embedding: labels that cannot be read, or are too few, end the build.
    if train_reranker:
        check_queries(wanted.judged)
    questions = calibration.questions()

    async def run() -> BuildResult:
        async with change_log.open_recorded(store, collection, redis) as recorded:
            with (
                command_executor(executor, dimensions=dimensions, device=chosen.device) as workers,
                open_progress(as_json) as progress,
            ):
                return await make(progress, recorded, workers)

    async def make(
        progress: Progress, recorded: change_log.Recorded, workers: Executor
    ) -> BuildResult:
        log = recorded.changes
        complete = await with_recorded_users(wanted, recorded.states)
        if complete.training is not None:
            check_not_empty(complete.training, training.before)
        if documents is None:
            return await retraining.rebuild_served(
                complete, embedding, progress, log, workers, quiet=as_json, dimensions=dimensions
            )
        if documents.brings_vectors:
            return await build_corpus(documents, complete, None, progress, log)
        async with open_embedder(
            embedding,
            quiet=as_json,
            dimensions=dimensions,
            store=store,
            device=chosen.device,
        ) as client:
            if train_reranker and complete.judged is not None:
                trainer = make_reranker_trainer(complete.judged, client, train_reranker)
                complete = replace(complete, train_reranker=trainer)
            if questions:
                calibrate = make_calibrator(questions, client, calibration.target_risk)
                complete = replace(complete, calibrate=calibrate)
            return await build_corpus(documents, complete, client, progress, log, workers)

    try:
        result = asyncio.run(run())
    except KeyboardInterrupt:
        output.print_note("interrupted; run the same command again to continue")
        raise
    skipped = skipped_record([] if documents is None else documents.skipped)
    if not as_json:
        build_summary.show_learning_summary(result)
    build_summary.print_build(result, store, as_json=as_json, more={"skipped": skipped})

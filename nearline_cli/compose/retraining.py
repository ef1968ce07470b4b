"""Training on interactions, and builds without a corpus, which retrain the served documents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from nearline.errors import InvalidRequest
from nearline.store.snapshot import Store
from nearline_cli.compose.build_context import ExecutorOptions, open_embedder
from nearline_cli.inputs.interactions import InteractionOptions

if TYPE_CHECKING:
    from index_builder.execution.executor import Executor
    from index_builder.execution.progress import Progress
    from index_builder.options.build_options import BuildOptions
    from index_builder.options.training_options import TrainingOptions
    from index_builder.pipeline.build_result import BuildResult
    from nearline.v1 import snapshot_pb2
    from retrieval.changelog.redis_log import RedisLog


class LearningOptions(NamedTuple):
    """Options that say what a build learns from."""

    interactions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Interactions of users with the documents, to train recommendations on: .csv, "
            ".csv.gz, .tsv, .jsonl, .ndjson or .parquet. \\[default: none; a build that merges, or "
            "has a change log, keeps the trained models]",
        ),
    ] = None
    learn: Annotated[
        bool | None,
        typer.Option(
            "--learn/--learn-afresh",
            help="Train the models again on recorded and imported interactions and --interactions: "
            "together "
            "with the interactions of the served snapshot (--learn), or without them "
            "(--learn-afresh). \\[default: with --interactions, --learn if documents are merged "
            "and --learn-afresh if they are replaced; otherwise the trained models stay unchanged]",
            show_default=False,
        ),
    ] = None
    keep_days: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Ignore interactions more than N days older than the newest. 0: use all.",
        ),
    ] = 0
    validate_on: Annotated[
        str,
        typer.Option(
            metavar="SPLIT",
            help="Interactions held out to choose which models serve: last-n:N, first-n:N, loo, "
            "time:SHARE (better for baskets) or cold-users:SHARE. \\[default: last-n:5]",
        ),
    ] = ""
    popularity_debias: Annotated[
        float | None,
        typer.Option(
            metavar="0..1",
            help="How much lists discount the popularity of items, unless a policy or a request "
            "says so. \\[default: what costs almost no accuracy on the held-out interactions]",
        ),
    ] = None


class TrainingPlan(NamedTuple):
    """Training of a build. before: Card of the served snapshot, if training continues from it."""

    options: TrainingOptions | None = None
    before: snapshot_pb2.BehaviourCard | None = None


# Options of `nearline build` that are allowed without a corpus; all others are about documents.
_WITHOUT_CORPUS = frozenset(
    (
        *("store", "collection", "redis", "golden_queries", "seed", "mode", "work_dir"),
        *("no_promote", "force", "why", "force_promote", "embedding", "as_json", "synonyms"),
        *LearningOptions._fields,
        *InteractionOptions._fields,
        *ExecutorOptions._fields,
    )
)


def check_without_corpus(context: typer.Context) -> None:
    """Refuses a build without a corpus that has nothing to do, or has options about documents.

    Raises:
        InvalidRequest: It cannot be done; the text names the options.
    """
    options = _options_on_command_line(context)
    if not {"interactions", "learn", "synonyms"} & options.keys():
        raise InvalidRequest(
            "no corpus was named; use --corpus FILE|DIR, or keep the served documents and learn "
            "again (--learn), or change the synonyms (--synonyms FILE)",
            field="corpus",
        )
    if "mode" in options and context.params["mode"] != "merge":
        raise InvalidRequest(
            f"--mode {context.params['mode']} without a corpus would leave no document; name "
            "--corpus FILE|DIR, or leave out --mode to keep the served documents",
            field="mode",
        )
    about_documents = [option for name, option in options.items() if name not in _WITHOUT_CORPUS]
    if about_documents:
        raise InvalidRequest(
            f"{', '.join(about_documents)} cannot be used without a corpus; leave it out to build "
            "the served documents unchanged, or name --corpus FILE|DIR",
            field="corpus",
        )


def requested_training(
    context: typer.Context,
    learning: LearningOptions,
    reading: InteractionOptions,
    build: BuildOptions,
) -> TrainingPlan:
    """Returns the training that the options of a build request; empty if they request none.

    Raises:
        InvalidRequest: Options contradict each other, or the interactions cannot be used.
    """
    from index_builder.interactions.merge import NO_INTERACTIONS
    from index_builder.options.build_options import Mode
    from index_builder.options.training_options import TrainingOptions
    from index_builder.pipeline.training_data import current_card, inherit_options

    if learning.interactions is None and learning.learn is None:
        _check_nothing_to_learn(context, learning)
        return TrainingPlan()
    adds = build.mode is Mode.MERGE if learning.learn is None else learning.learn
    before = current_card(Store.open(build.store), build.collection) if adds else None
    options = TrainingOptions(
        interactions=NO_INTERACTIONS,
        kind_weights=reading.kind_weights(),
        append=adds,
        keep_days=learning.keep_days,
        validate_on=learning.validate_on,
        popularity_debias=learning.popularity_debias,
    )
    if learning.interactions is not None:
        known = None if before is None else before.kind_weights
        cleaned = reading.load(learning.interactions, known)
        options = replace(
            options,
            interactions=cleaned.interactions,
            left_out=cleaned.left_out,
            kind_weights=cleaned.weights,
        )
    if before is not None:
        options = inherit_options(options, before)
    options.check(build.seed)
    return TrainingPlan(options, before)


def _check_nothing_to_learn(context: typer.Context, learning: LearningOptions) -> None:
    options = _options_on_command_line(context)
    if given := [option for name, option in options.items() if name in InteractionOptions._fields]:
        raise InvalidRequest(
            f"{', '.join(given)} cannot be used without interactions; add --interactions FILE, or "
            "--learn",
            field="interactions",
        )
    for field, value in (
        ("validate_on", learning.validate_on or None),
        ("keep_days", learning.keep_days or None),
        ("popularity_debias", learning.popularity_debias),
    ):
        if value is not None:
            raise InvalidRequest(
                f"--{field.replace('_', '-')} {value} cannot be used without interactions; add "
                "--interactions FILE, or --learn",
                field=field,
            )


async def rebuild_served(
    options: BuildOptions,
    address: str,
    shown: Progress,
    log: RedisLog | None,
    executor: Executor,
    *,
    quiet: bool,
    dimensions: int = 0,
) -> BuildResult:
    """Builds a snapshot of the served documents and their live changes.

    Args:
        options: As `compaction_options` returns them.
        address: Address of the embedding service. If empty, a service is started when the snapshot
            needs it.
        shown: Progress of the build.
        log: Change log of the collection, if it has one.
        executor: Embeds documents that have no vectors.
        quiet: Whether to report nothing on standard error.
        dimensions: See `open_embedder`.
    """
    from index_builder.pipeline.compaction import compact, read_current_manifest

    current = read_current_manifest(Store.open(options.store), options.collection)
    if not current.embedder.fingerprint:
        return await compact(options, log, None, shown)
    async with open_embedder(
        address,
        quiet=quiet,
        dimensions=dimensions,
        store=options.store,
        device=options.device,
    ) as client:
        return await compact(options, log, client, shown, executor)


def _options_on_command_line(context: typer.Context) -> dict[str, str]:
    """Returns the options on the command line, by parameter name."""
    return {
        parameter.name: parameter.opts[0]
        for parameter in context.command.params
        if parameter.name
        and (source := context.get_parameter_source(parameter.name)) is not None
        and source.name == "COMMANDLINE"
    }

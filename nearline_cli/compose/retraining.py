"""What `nearline build` learns from, and what it builds where no corpus is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearline.errors import InvalidRequest, NotFound
from nearline.snapshot import Store
from nearline_cli.compose.build_context import open_embedder
from nearline_cli.inputs import interactions as interacting

if TYPE_CHECKING:
    from index_builder.execution.executor import Executor
    from index_builder.execution.progress import Progress
    from index_builder.interactions.cleanup import CleaningRules
    from index_builder.interactions.reader import InteractionColumns
    from index_builder.options.build_options import BuildOptions
    from index_builder.options.training_options import TrainingOptions
    from index_builder.pipeline.build_result import BuildResult
    from nearline.v1 import snapshot_pb2
    from retrieval.changelog.redis_log import RedisLog

LearnOption = Annotated[
    bool | None,
    typer.Option(
        "--learn/--learn-afresh",
        help="Learn again from what was recorded and --interactions, together with what the "
        "snapshot that is served learned from, or without that. \\[default: with --interactions: "
        "together where documents are merged, afresh where they are replaced; without: what was "
        "learned is kept as it is]",
        show_default=False,
    ),
]
KeepDaysOption = Annotated[
    int,
    typer.Option(
        "--keep-days",
        metavar="N",
        min=0,
        help="Learn nothing from what is more than N days older than the newest interaction. 0: "
        "from all.",
    ),
]
_OF_INTERACTIONS = frozenset(
    (
        *("user_column", "item_column", "time_column", "kind_column", "kind", "value_column"),
        *("min_per_user", "min_per_item", "max_per_user_day", "duplicates_within"),
    )
)
# What `nearline build` may be told where no corpus is named; all else is about documents.
_WITHOUT_CORPUS = frozenset(
    (
        *("store", "collection", "learn", "keep_days", "interactions", "validate_on", "redis"),
        *_OF_INTERACTIONS,
        *("golden_queries", "seed", "mode", "no_promote", "force_promote", "work_dir"),
        *("embedding", "as_json", "executor", "ray_address"),
    )
)


def check_without_corpus(context: typer.Context) -> None:
    """Refuses a build without a corpus that has nothing to learn, or is told of documents.

    Raises: InvalidRequest.
    """
    told = _told(context)
    if not {"interactions", "learn"} & told.keys():
        raise InvalidRequest(
            "no corpus was named; use --corpus FILE|DIR, or --learn to learn again and keep the "
            "documents that are served",
            field="corpus",
        )
    if "mode" in told and context.params["mode"] != "merge":
        raise InvalidRequest(
            f"--mode {context.params['mode']} without a corpus would leave no document; name "
            "--corpus FILE|DIR, or leave out --mode to keep the documents that are served",
            field="mode",
        )
    about_documents = [option for name, option in told.items() if name not in _WITHOUT_CORPUS]
    if about_documents:
        raise InvalidRequest(
            f"{', '.join(about_documents)} is about documents of a corpus, and none is named: the "
            "snapshot is built as the one that is served; leave it out, or name --corpus FILE|DIR",
            field="corpus",
        )


def given_interaction_options(context: typer.Context) -> str:
    """Returns the options about a file of interactions that were given; empty: none."""
    told = _told(context)
    return ", ".join(option for name, option in told.items() if name in _OF_INTERACTIONS)


def served_behaviour(store: str, collection: str) -> snapshot_pb2.BehaviourCard | None:
    """Returns what the snapshot that is served learned; None: nothing, or nothing is served."""
    try:
        manifest = _current(store, collection)
    except NotFound:
        return None
    return manifest.behaviour if manifest.HasField("behaviour") else None


def training_options(
    file: Path | None,
    columns: InteractionColumns,
    kinds: list[str] | None,
    rules: CleaningRules,
    before: snapshot_pb2.BehaviourCard | None,
    told: TrainingOptions,
) -> TrainingOptions:
    """Reads what is learned from, as far as it is in a file.

    Args:
        file: None: what is recorded, and what the snapshot before has.
        kinds: As `--kind` takes them.
        before: How the snapshot before learned, where that is gone on from.
        told: Everything else that is wanted.
    Raises: InvalidRequest.
    """
    from index_builder.pipeline.training_data import inherit_options

    if file is None:
        learning = replace(told, kind_weights=interacting.parse_kind_weights(kinds or []))
    else:
        known = None if before is None else before.kind_weights
        read = interacting.load_interactions(file, columns, kinds, rules, known)
        learning = replace(
            told,
            interactions=read.interactions,
            left_out=read.left_out,
            kind_weights=read.weights,
        )
    return learning if before is None else inherit_options(learning, before)


def served_build_options(options: BuildOptions) -> BuildOptions:
    """Returns options that build the documents that are served as they were built.

    Raises: NotFound: nothing is published.
    """
    from index_builder.pipeline.compaction import compaction_options

    return compaction_options(options)


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
    """Builds the documents that are served, with their live changes, and learns again.

    Args:
        options: As `served_build_options` gives them.
        address: Of the embedding service; empty: one is started where the snapshot needs one.
        executor: Embeds what has no vectors.
        dimensions: See `building.embedder`.
    """
    from index_builder.pipeline.compaction import compact

    if not _current(options.store, options.collection).embedder.fingerprint:
        return await compact(options, log, None, shown)
    async with open_embedder(
        address, quiet=quiet, dimensions=dimensions, store=options.store
    ) as client:
        return await compact(options, log, client, shown, executor)


def _current(store: str, collection: str) -> snapshot_pb2.Manifest:
    from index_builder.pipeline.compaction import read_current_manifest

    return read_current_manifest(Store.open(store), collection)


def _told(context: typer.Context) -> dict[str, str]:
    """Returns the options of the command line, by the name of the parameter."""
    return {
        one.name: one.opts[0]
        for one in context.command.params
        if one.name
        and (source := context.get_parameter_source(one.name)) is not None
        and source.name == "COMMANDLINE"
    }

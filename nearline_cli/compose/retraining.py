"""What `nearline build` learns from, and what it builds where no corpus is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearline.errors import InvalidRequest, NotFound
from nearline.snapshot import Store
from nearline_cli.compose.build_context import embedder
from nearline_cli.inputs import interactions as interacting

if TYPE_CHECKING:
    from index_builder.execution.executor import Executor
    from index_builder.execution.progress import Progress
    from index_builder.interactions.cleanup import Rules
    from index_builder.interactions.reader import Columns
    from index_builder.options.build_options import BuildOptions, BuildResult
    from index_builder.options.training_options import Learning
    from nearline.v1 import snapshot_pb2
    from retrieval.changelog.redis_log import RedisLog

LearnOption = Annotated[
    bool | None,
    typer.Option(
        "--learn/--learn-afresh",
        help="Learn anew from what was recorded and --interactions, together with what the "
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
            "no corpus was named; use --corpus FILE|DIR, or --learn to learn anew and keep the "
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


def told_of_interactions(context: typer.Context) -> str:
    """Gives the options about a file of interactions that were given; empty: none."""
    told = _told(context)
    return ", ".join(option for name, option in told.items() if name in _OF_INTERACTIONS)


def behaviour_before(store: str, collection: str) -> snapshot_pb2.BehaviourCard | None:
    """Gives what the snapshot that is served learned; None: nothing, or nothing is served."""
    try:
        manifest = _current(store, collection)
    except NotFound:
        return None
    return manifest.behaviour if manifest.HasField("behaviour") else None


def learning_from(
    file: Path | None,
    columns: Columns,
    kinds: list[str] | None,
    rules: Rules,
    before: snapshot_pb2.BehaviourCard | None,
    told: Learning,
) -> Learning:
    """Reads what is learned from, as far as it is in a file.

    Args:
        file: None: what is recorded, and what the snapshot before has.
        kinds: As `--kind` takes them.
        before: How the snapshot before learned, where that is gone on from.
        told: Everything else that is wanted.
    Raises: InvalidRequest.
    """
    from index_builder.pipeline.training_data import as_before

    if file is None:
        learning = replace(told, kind_weights=interacting.weights_of(kinds or []))
    else:
        known = None if before is None else before.kind_weights
        read = interacting.read(file, columns, kinds, rules, known)
        learning = replace(
            told,
            interactions=read.interactions,
            left_out=read.left_out,
            kind_weights=read.weights,
        )
    return learning if before is None else as_before(learning, before)


def as_served(options: BuildOptions) -> BuildOptions:
    """Gives options that build the documents that are served as they were built.

    Raises: NotFound: nothing is published.
    """
    from index_builder.pipeline.compaction import compaction_options

    return compaction_options(options)


async def build_again(
    options: BuildOptions,
    address: str,
    shown: Progress,
    log: RedisLog | None,
    executor: Executor,
    *,
    quiet: bool,
    dimensions: int = 0,
) -> BuildResult:
    """Builds the documents that are served, with their live changes, and learns anew.

    Args:
        options: As `as_served` gives them.
        address: Of the embedding service; empty: one is started where the snapshot needs one.
        executor: Embeds what has no vectors.
        dimensions: See `building.embedder`.
    """
    from index_builder.pipeline.compaction import compact

    if not _current(options.store, options.collection).embedder.fingerprint:
        return await compact(options, log, None, shown)
    async with embedder(address, quiet=quiet, dimensions=dimensions, store=options.store) as client:
        return await compact(options, log, client, shown, executor)


def _current(store: str, collection: str) -> snapshot_pb2.Manifest:
    from index_builder.pipeline.compaction import current

    return current(Store.open(store), collection)


def _told(context: typer.Context) -> dict[str, str]:
    """Gives the options of the command line, by the name of the parameter."""
    return {
        one.name: one.opts[0]
        for one in context.command.params
        if one.name
        and (source := context.get_parameter_source(one.name)) is not None
        and source.name == "COMMANDLINE"
    }

"""`nearline reembed`: moves a collection of texts to a different embedding model."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearline.store.snapshot import Store
from nearline_cli.compose import change_log, release_gate
from nearline_cli.compose.build_context import (
    ExecutorOptions,
    command_executor,
    open_embedder,
)
from nearline_cli.terminal import options, output
from nearline_cli.terminal.option_groups import SettingsOptions
from nearline_cli.terminal.progress import open_progress
from nearline_cli.views import build_summary

if TYPE_CHECKING:
    from index_builder.pipeline.build_result import BuildResult


_SETTINGS = SettingsOptions(
    module="index_builder.pipeline.settings",
    name="IndexBuilderSettings",
    only=("device", "golden_queries", "promote", "work_dir"),
    metavars={"device": "DEVICE", "work_dir": "DIR"},
    help={"promote": "Do not serve the snapshot yet."},
)


def reembed(
    embedding: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT,…",
            help="Embedding services of the new model, which share the work.",
        ),
    ],
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    redis: change_log.RedisOption = "",
    *,
    settings: Annotated[dict[str, Any], _SETTINGS],
    forced: release_gate.ForceOptions,
    executor: ExecutorOptions,
    as_json: output.JsonFlag = False,
) -> None:
    """Embed every document of a collection again, with a different model and all live changes.

    For example: nearline reembed --embedding 127.0.0.1:7711

    No file is read: the texts are those of the served snapshot. The tuned weight and the
    calibration, which belong to the previous model, are reset to their defaults. If the command is
    interrupted, run it again: documents that were embedded before are not embedded again.
    """
    from index_builder.options.build_options import BuildOptions
    from index_builder.pipeline import compaction
    from index_builder.pipeline.training_data import with_recorded_users
    from index_builder.releases.build_gate import gate_of_build

    work_dir = settings["work_dir"]
    wanted = BuildOptions(
        store=store,
        collection=collection,
        device=settings["device"],
        golden_queries=settings["golden_queries"],
        promote=settings["promote"],
        # The purpose of this command is another model.
        gate=gate_of_build(forced.reason(), allow_model_change=True),
        work_dir=Path(work_dir) if work_dir else None,
    )

    async def run() -> BuildResult:
        async with contextlib.AsyncExitStack() as stack:
            workers = stack.enter_context(command_executor(executor, device=wanted.device))
            recorded = await stack.enter_async_context(
                change_log.open_recorded(store, collection, redis)
            )
            chosen = compaction.compaction_options(wanted)
            chosen = await with_recorded_users(chosen, recorded.states)
            client = await stack.enter_async_context(open_embedder(embedding, quiet=as_json))
            shown = stack.enter_context(open_progress(as_json))
            return await compaction.reembed(chosen, recorded.changes, client, shown, workers)

    before = compaction.read_current_manifest(Store.open(store), collection)
    try:
        result = asyncio.run(run())
    except KeyboardInterrupt:
        output.print_note("interrupted; run the same command again to continue")
        raise
    build_summary.print_build(result, store, as_json=as_json)
    if not as_json and (before.fusion.origin == "tuned" or before.HasField("answers")):
        output.print_note(
            "tuning and calibration belonged to the previous model and were reset; tune again"
        )

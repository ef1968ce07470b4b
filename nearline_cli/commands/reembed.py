"""`nearline reembed`: a collection of texts goes over to another embedding model."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearline.snapshot import Store
from nearline_cli.compose import change_log, release_gate
from nearline_cli.compose.build_context import (
    ExecutorOption,
    RayAddressOption,
    command_executor,
    open_embedder,
)
from nearline_cli.compose.change_log import with_recorded_users
from nearline_cli.terminal import options, output
from nearline_cli.terminal.progress import open_progress
from nearline_cli.views import build_summary

if TYPE_CHECKING:
    from index_builder.pipeline.build_result import BuildResult


def reembed(
    embedding: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Embedding service of the new model.")
    ],
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    redis: change_log.RedisOption = "",
    golden_queries: Annotated[
        int, typer.Option(metavar="N", help="Sampled queries with exact answers.")
    ] = 200,
    no_promote: Annotated[
        bool, typer.Option("--no-promote", help="Do not serve the snapshot yet.")
    ] = False,
    force_promote: release_gate.ForcePromoteOption = "",
    work_dir: Annotated[
        str, typer.Option(metavar="DIR", help="Where a killed run leaves its work.")
    ] = "",
    executor: ExecutorOption = "local",
    ray_address: RayAddressOption = "",
    as_json: output.JsonFlag = False,
) -> None:
    """Embed every document of a collection again, by another model, with all live changes.

    No file is read: the texts are those of the snapshot that is served. What was tuned with the
    model before is as shipped then. Run the same command again after a kill: what was embedded is
    not embedded again.
    """
    from index_builder.options.build_options import BuildOptions
    from index_builder.pipeline import compaction
    from index_builder.releases.build_gate import check_promoted, gate_of_build

    wanted = BuildOptions(
        store=store,
        collection=collection,
        golden_queries=golden_queries,
        promote=not no_promote,
        # Another model is what this is for.
        gate=gate_of_build(force_promote, allow_model_change=True),
        work_dir=Path(work_dir) if work_dir else None,
    )

    async def run() -> BuildResult:
        async with contextlib.AsyncExitStack() as stack:
            doing = stack.enter_context(command_executor(executor, ray_address))
            log = await stack.enter_async_context(
                change_log.open_change_log_if_any(store, collection, redis)
            )
            chosen = compaction.compaction_options(wanted)
            if log is not None:
                chosen = await with_recorded_users(chosen, log)
            client = await stack.enter_async_context(open_embedder(embedding, quiet=as_json))
            shown = stack.enter_context(open_progress(as_json))
            return await compaction.reembed(chosen, log, client, shown, doing)

    before = compaction.read_current_manifest(Store.open(store), collection)
    try:
        result = asyncio.run(run())
    except KeyboardInterrupt:
        output.print_note("interrupted; the same command goes on from here")
        raise
    if as_json:
        output.print_json(result.record())
        check_promoted(result, Store.open(store))
        return
    build_summary.show_build_summary(result, store)
    check_promoted(result, Store.open(store))
    tuned = before.fusion.origin == "tuned" or before.HasField("answers")
    if tuned:
        output.print_note(
            "what was tuned or calibrated with the model before is as shipped; tune it again"
        )

"""`nearline changes` and `nearline compact`: the change log of a collection, and its archive."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearline.counts import counted
from nearline.durations import parse_duration
from nearline.errors import NearlineError, NotFound, NotReady, SnapshotMismatch
from nearline.store.snapshot import Store
from nearline_cli.compose import release_gate
from nearline_cli.compose.build_context import ExecutorOptions, command_executor
from nearline_cli.compose.change_log import RedisOption, open_change_log
from nearline_cli.compose.retraining import rebuild_served
from nearline_cli.terminal import confirmation, options, output
from nearline_cli.terminal.option_groups import SettingsOptions
from nearline_cli.terminal.progress import open_progress

if TYPE_CHECKING:
    from index_builder.pipeline.build_result import BuildResult
    from retrieval.changelog.change_log import ChangeLog

app = typer.Typer(no_args_is_help=True, help="Manage the log of live changes.")

_SETTINGS = SettingsOptions(
    module="index_builder.pipeline.maintenance_settings",
    name="UpkeepSettings",
    only=("share", "age", "device", "golden_queries", "work_dir"),
    metavars={"share": "RATIO", "age": "DURATION", "device": "DEVICE", "work_dir": "DIR"},
)


@app.command()
def status(
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    redis: RedisOption = "",
    as_json: output.JsonFlag = False,
) -> None:
    """Show the size of the log, and how much of it is archived and trimmed."""
    opened = Store.open(store)

    async def ask() -> dict[str, object]:
        async with open_change_log(opened, collection, redis) as log:
            return await _status(opened, log)

    record = asyncio.run(ask())
    output.print_figures(record, as_json=as_json, names=("field", "value"))


@app.command()
def archive(
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    redis: RedisOption = "",
    as_json: output.JsonFlag = False,
) -> None:
    """Copy new changes from the log to the store."""
    from retrieval.changelog import archive as archives

    opened = Store.open(store)

    async def run() -> dict[str, object]:
        async with open_change_log(opened, collection, redis) as log:
            segments = await archives.archive_changes(opened, log)
            changes, count = sum(segments.end().positions), len(segments.numbers())
            return {"collection": collection, "archived": changes, "segments": count}

    _print(asyncio.run(run()), "{archived:,} changes are archived in {segments} segments", as_json)


@app.command()
def trim(
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    redis: RedisOption = "",
    drop_archived: Annotated[
        bool,
        typer.Option(
            "--drop-archived",
            help="Also remove archived segments that every snapshot contains, so that deleted "
            "texts are gone.",
        ),
    ] = False,
    yes: confirmation.YesOption = False,
    as_json: output.JsonFlag = False,
) -> None:
    """Remove changes from the log that are archived and part of every snapshot."""
    from retrieval.changelog import archive as archives, retention

    opened = Store.open(store)
    if drop_archived:
        confirmation.confirm(
            f"remove archived changes of {collection!r} that every snapshot contains", yes=yes
        )

    async def run() -> dict[str, object]:
        async with open_change_log(opened, collection, redis) as log:
            await archives.archive_changes(opened, log)
            trimmed = await retention.trim_log(opened, log)
        dropped = retention.drop_archived_segments(opened, collection) if drop_archived else 0
        return {"collection": collection, "trimmed": trimmed, "segments_dropped": dropped}

    summary = "trimmed {trimmed:,} changes from the log, removed {segments_dropped} segments"
    _print(asyncio.run(run()), summary, as_json)


@app.command()
def reset(
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    redis: RedisOption = "",
    why: options.WhyOption = "",
    yes: confirmation.YesOption = False,
    as_json: output.JsonFlag = False,
) -> None:
    """Start a new log after Redis lost the old one.

    Archived changes are kept: the next build, or `nearline compact`, includes them. Restart the
    services afterwards.
    """
    from retrieval.changelog.creation import start_new_log
    from retrieval.snapshots.aliases import operator_name

    opened = Store.open(store)
    loss = asyncio.run(_describe_loss(opened, collection, redis))
    confirmation.confirm(f"start a new change log of {collection!r} ({loss})", yes=yes)
    record = start_new_log(opened, collection, operator_name(), why or "nearline changes reset")
    details: dict[str, object] = {
        "collection": collection,
        "log_id": record.log_id,
        "follows": record.follows,
        "lost": loss,
    }
    _print(details, "change log {log_id} follows {follows}: {lost}", as_json)


def compact(
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    redis: RedisOption = "",
    if_due: Annotated[
        bool, typer.Option("--if-due", help="Compact only if --share or --age is exceeded.")
    ] = False,
    *,
    settings: Annotated[dict[str, Any], _SETTINGS],
    embedding: options.EmbeddingsOption = "",
    executor: ExecutorOptions,
    forced: release_gate.ForceOptions,
    as_json: output.JsonFlag = False,
) -> None:
    """Merge all live changes into a new snapshot, and serve it if it passes the release gate.

    For example: nearline compact --if-due

    Existing vectors are reused. Changes that every snapshot contains are then trimmed from the log
    and its archive.
    """
    from index_builder.options.build_options import BuildOptions
    from index_builder.pipeline import compaction
    from index_builder.pipeline.training_data import with_recorded_users
    from index_builder.releases.build_gate import gate_of_build
    from nearline_cli.views.build_summary import print_build

    work_dir = settings["work_dir"]
    age_s = parse_duration(settings["age"], "--age")
    opened = Store.open(store)
    wanted = BuildOptions(
        store=store,
        collection=collection,
        device=settings["device"],
        golden_queries=settings["golden_queries"],
        gate=gate_of_build(forced.reason()),
        work_dir=Path(work_dir) if work_dir else None,
    )

    async def run() -> tuple[compaction.CompactionCheck, BuildResult | None]:
        async with contextlib.AsyncExitStack() as stack:
            log = await stack.enter_async_context(open_change_log(opened, collection, redis))
            due = await compaction.check_compaction(opened, log, settings["share"], age_s)
            if not due.changes or (if_due and not due.reason):
                return due, None
            workers = stack.enter_context(command_executor(executor, device=wanted.device))
            chosen = compaction.compaction_options(wanted)
            chosen = await with_recorded_users(chosen, log.user_states())
            shown = stack.enter_context(open_progress(as_json))
            built = await rebuild_served(chosen, embedding, shown, log, workers, quiet=as_json)
            return due, built

    due, result = asyncio.run(run())
    if result is not None:
        print_build(result, store, as_json=as_json)
        return
    details = {"collection": collection, "changes": due.changes, "due": False}
    words = f"not due: {counted(due.changes, 'change')} since the served snapshot"
    _print(details, words, as_json)


async def _status(store: Store, log: ChangeLog) -> dict[str, object]:
    from retrieval.changelog.archive import Archive
    from retrieval.changelog.retention import common_watermark

    state = await log.state()
    log_id = state.head.log_id
    archive = Archive(store, log.collection, log_id)
    archived = archive.end()
    head, trimmed = sum(state.head.positions), sum(state.trimmed.positions)
    least = common_watermark(store, log.collection, log_id)
    return {
        "collection": log.collection,
        "log_id": log_id,
        "changes": head,
        "in_log": head - trimmed,
        "trimmed": trimmed,
        "archived": sum(archived.positions),
        "segments": len(archive.numbers()),
        "in_every_snapshot": sum(map(min, least.positions, state.head.positions)),
    }


async def _describe_loss(store: Store, collection: str, redis: str) -> str:
    """Describes what a new log would lose; archives the current log if possible."""
    from retrieval.changelog.archive import Archive, archive_changes as archive_log

    record = store.log_in_force(collection)
    if record is None:
        raise NotFound(f"collection {collection!r} has no change log in {store.url}")
    try:
        async with open_change_log(store, collection, redis) as log:
            await archive_log(store, log)
    except (NotReady, SnapshotMismatch) as error:
        archived = sum(Archive(store, collection, record.log_id).end().positions)
        return (
            f"{archived:,} changes of log {record.log_id} are archived, later ones are lost "
            f"({error.message})"
        )
    except NearlineError as error:
        return f"changes of log {record.log_id} that are not archived are lost ({error.message})"
    return f"log {record.log_id} is fully archived, nothing is lost"


def _print(record: dict[str, object], words: str, as_json: bool) -> None:
    output.print_result(record, words.format(**record), as_json=as_json)

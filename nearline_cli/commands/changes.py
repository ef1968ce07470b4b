"""`nearline changes` and `nearline compact`: the change log of a collection, and its archive."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearline.errors import InvalidRequest, NearlineError, NotFound, NotReady, SnapshotMismatch
from nearline.snapshot import Store
from nearline_cli.compose.build_context import (
    ExecutorOptions,
    command_executor,
    open_embedder,
)
from nearline_cli.compose.change_log import RedisOption, open_change_log, with_recorded_users
from nearline_cli.terminal import options, output
from nearline_cli.terminal.option_groups import SettingsOptions
from nearline_cli.terminal.progress import open_progress

if TYPE_CHECKING:
    from index_builder.pipeline.build_result import BuildResult
    from retrieval.changelog.change_log import ChangeLog

app = typer.Typer(no_args_is_help=True, help="Look after the log of live changes.")

_SETTINGS = SettingsOptions(
    module="index_builder.pipeline.maintenance_settings",
    name="UpkeepSettings",
    only=("share", "age", "golden_queries", "work_dir"),
    metavars={"share": "RATIO", "age": "TIME", "work_dir": "DIR"},
)
_YesOption = Annotated[bool, typer.Option("--yes", help="Do it; without it, only say what.")]


@app.command()
def status(
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    redis: RedisOption = "",
    as_json: output.JsonFlag = False,
) -> None:
    """Tell how far the log goes, what of it is archived and trimmed, and what holds it."""
    opened = Store.open(store)

    async def ask() -> dict[str, object]:
        async with open_change_log(opened, collection, redis) as log:
            return await _status(opened, log)

    record = asyncio.run(ask())
    if as_json:
        output.print_json(record)
    else:
        output.print_table(("field", "value"), list(record.items()))


@app.command()
def archive(
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    redis: RedisOption = "",
    as_json: output.JsonFlag = False,
) -> None:
    """Copy what is new in the log to the store."""
    from retrieval.changelog import archive as archiving

    opened = Store.open(store)

    async def run() -> dict[str, object]:
        async with open_change_log(opened, collection, redis) as log:
            kept = await archiving.archive_changes(opened, log)
            changes, segments = sum(kept.end().positions), len(kept.numbers())
            return {"collection": collection, "archived": changes, "segments": segments}

    _told(asyncio.run(run()), "{archived:,} changes are archived, in {segments} segments", as_json)


@app.command()
def trim(
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    redis: RedisOption = "",
    drop_archived: Annotated[
        bool,
        typer.Option(
            "--drop-archived",
            help="Also remove archived segments that every snapshot has: so deleted texts leave.",
        ),
    ] = False,
    as_json: output.JsonFlag = False,
) -> None:
    """Make the log forget what is archived and every snapshot in the store has."""
    from retrieval.changelog import archive as archiving
    from retrieval.changelog import retention

    opened = Store.open(store)

    async def run() -> dict[str, object]:
        async with open_change_log(opened, collection, redis) as log:
            await archiving.archive_changes(opened, log)
            trimmed = await retention.trim_log(opened, log)
        dropped = retention.drop_archived_segments(opened, collection) if drop_archived else 0
        return {"collection": collection, "trimmed": trimmed, "segments_dropped": dropped}

    told = "{trimmed:,} changes were trimmed from the log, {segments_dropped} segments removed"
    _told(asyncio.run(run()), told, as_json)


@app.command()
def reset(
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    redis: RedisOption = "",
    why: Annotated[str, typer.Option("--why", help="Why, for the record.")] = "",
    yes: _YesOption = False,
    as_json: output.JsonFlag = False,
) -> None:
    """Start a new log in the place of one that is lost, after Redis was wiped.

    What is archived of the old one stays: the next build, or `nearline compact`, takes it in.
    Restart the services then.
    """
    from retrieval.changelog.creation import start_new_log
    from retrieval.snapshots.aliases import operator_name

    opened = Store.open(store)
    lost = asyncio.run(_lost(opened, collection, redis))
    if not yes:
        raise InvalidRequest(f"{lost}; to start a new log add --yes", field="yes")
    record = start_new_log(opened, collection, operator_name(), why or "nearline changes reset")
    told: dict[str, object] = {
        "collection": collection,
        "log_id": record.log_id,
        "follows": record.follows,
        "lost": lost,
    }
    _told(told, "change log {log_id} follows {follows}: {lost}", as_json)


def compact(
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    redis: RedisOption = "",
    if_due: Annotated[
        bool, typer.Option("--if-due", help="Only if --share or --age is exceeded.")
    ] = False,
    *,
    settings: Annotated[dict[str, Any], _SETTINGS],
    embedding: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT", help="Embedding service. \\[default: one is started for it]"
        ),
    ] = "",
    executor: ExecutorOptions,
    as_json: output.JsonFlag = False,
) -> None:
    """Make a snapshot of the current one and all live changes since, and serve it.

    Vectors are taken over; the log and its archive then forget what every snapshot has.
    """
    from index_builder.options.build_options import BuildOptions
    from index_builder.pipeline import compaction
    from index_builder.pipeline.maintenance_settings import parse_age
    from nearline_cli.views.build_summary import show_build_summary

    work_dir = settings["work_dir"]
    age_s = parse_age(settings["age"])
    opened = Store.open(store)
    wanted = BuildOptions(
        store=store,
        collection=collection,
        golden_queries=settings["golden_queries"],
        work_dir=Path(work_dir) if work_dir else None,
    )

    async def run() -> tuple[compaction.CompactionCheck, BuildResult | None]:
        async with contextlib.AsyncExitStack() as stack:
            log = await stack.enter_async_context(open_change_log(opened, collection, redis))
            due = await compaction.check_compaction(opened, log, settings["share"], age_s)
            if not due.changes or (if_due and not due.reason):
                return due, None
            workers = stack.enter_context(command_executor(executor))
            client = None
            if compaction.read_current_manifest(opened, collection).embedder.fingerprint:
                client = await stack.enter_async_context(open_embedder(embedding, quiet=as_json))
            chosen = compaction.compaction_options(wanted)
            chosen = await with_recorded_users(chosen, log)
            shown = stack.enter_context(open_progress(as_json))
            return due, await compaction.compact(chosen, log, client, shown, workers)

    due, result = asyncio.run(run())
    if result is not None:
        if as_json:
            output.print_json(result.record())
        else:
            show_build_summary(result, store)
        return
    told = {"collection": collection, "changes": due.changes, "due": False}
    _told(told, "not due: {changes:,} changes since the snapshot that is served", as_json)


async def _status(store: Store, log: ChangeLog) -> dict[str, object]:
    from retrieval.changelog.archive import Archive
    from retrieval.changelog.retention import common_watermark

    state = await log.state()
    log_id = state.head.log_id
    kept = Archive(store, log.collection, log_id)
    archived = kept.end()
    head, trimmed = sum(state.head.positions), sum(state.trimmed.positions)
    least = common_watermark(store, log.collection, log_id)
    return {
        "collection": log.collection,
        "log_id": log_id,
        "changes": head,
        "in_log": head - trimmed,
        "trimmed": trimmed,
        "archived": sum(archived.positions),
        "segments": len(kept.numbers()),
        "in_every_snapshot": sum(map(min, least.positions, state.head.positions)),
    }


async def _lost(store: Store, collection: str, redis: str) -> str:
    """Says what a new log in the place of the one in force forgets; archives it where it can."""
    from retrieval.changelog.archive import Archive
    from retrieval.changelog.archive import archive_changes as archive_log

    record = store.log_in_force(collection)
    if record is None:
        raise NotFound(f"collection {collection!r} has no change log in {store.url}")
    try:
        async with open_change_log(store, collection, redis) as log:
            await archive_log(store, log)
    except (NotReady, SnapshotMismatch) as error:
        kept = sum(Archive(store, collection, record.log_id).end().positions)
        return (
            f"of log {record.log_id} {kept:,} changes are archived, whatever came after them is "
            f"lost ({error.message})"
        )
    except NearlineError as error:
        return f"what is not archived of log {record.log_id} is lost ({error.message})"
    return f"log {record.log_id} is archived whole, nothing is lost"


def _told(record: dict[str, object], words: str, as_json: bool) -> None:
    if as_json:
        output.print_json(record)
    else:
        output.console().print(words.format(**record), markup=False)

"""`nearline snapshots promote`, `rollback` and `prune`: change which snapshot is current."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from nearline.counts import counted
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from nearline_cli.compose import milvus_target, release_gate
from nearline_cli.compose.alias_admin import AliasChange, open_admin
from nearline_cli.terminal import alias_options, confirmation, options, output

if TYPE_CHECKING:
    from retrieval.snapshots.retention import PruneCandidate


def promote(
    snapshot_id: Annotated[str, typer.Argument(metavar="ID", help="Snapshot id.")],
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    why: options.WhyOption = "",
    force: release_gate.ForceOption = False,
    *,
    request: release_gate.GateRequest,
    expect_epoch: alias_options.EpochOption = 0,
    router: alias_options.RouterOption = "",
    wait_s: alias_options.WaitOption = alias_options.NO_WAIT,
    as_json: output.JsonFlag = False,
) -> None:
    """Make a snapshot current, after the release gate has compared it with the current one.

    For example: nearline snapshots promote 20261125T004218Z-1f3a9c --why "new catalogue"

    Routers load the snapshot alongside the served one and switch when it is ready; `nearline
    status` shows the progress. The gate runs here, so --store is needed even with --address.
    """
    from retrieval.snapshots import aliases

    release_gate.check_force_reason(force, why)
    who = aliases.operator_name()
    opened = Store.open(store)
    if not router or snapshot_id in opened.snapshot_ids(collection):
        # Checked before minutes of judging; and the snapshot judged against must stay current.
        expect_epoch = aliases.check_epoch(opened, collection, expect_epoch)
    admin = open_admin(router, store, collection, request.redis)
    admin.check(snapshot_id)
    gate = release_gate.require_gate_pass(
        opened,
        collection,
        snapshot_id,
        request,
        forced_because=why if force else "",
        router=router,
        quiet=as_json,
    )
    # The gate has just verified the files.
    change = AliasChange(who, why, expect_epoch, gate, verify="files" in gate.failed)
    record = admin.promote(snapshot_id, change)
    admin.served(record, wait_s)
    _show(collection, record, as_json)


def rollback(
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    why: options.WhyOption = "",
    expect_epoch: alias_options.EpochOption = 0,
    router: alias_options.RouterOption = "",
    redis: alias_options.RedisOption = "",
    wait_s: alias_options.WaitOption = alias_options.NO_WAIT,
    as_json: output.JsonFlag = False,
) -> None:
    """Make the previous snapshot current again.

    Rolling back twice goes back two snapshots.
    """
    from retrieval.snapshots import aliases

    who = aliases.operator_name()
    admin = open_admin(router, store, collection, redis)
    record = admin.roll_back(AliasChange(who, why, expect_epoch))
    admin.served(record, wait_s)
    _show(collection, record, as_json)


def prune(
    keep: Annotated[
        int,
        typer.Option(min=0, help="Snapshots to keep in addition to those in use, newest first."),
    ] = 2,
    yes: confirmation.YesOption = False,
    young: Annotated[
        bool, typer.Option("--young", help="Also remove snapshots younger than an hour.")
    ] = False,
    milvus_uri: milvus_target.MilvusUriOption = "",
    milvus_token: milvus_target.MilvusTokenOption = "",
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Remove old snapshots, and leftovers of interrupted builds.

    For example: nearline snapshots prune --keep 2 --yes

    Snapshots named by an alias, and the one a rollback would return to, are always kept. Work of an
    unfinished build in an object store is kept for a week after its last piece. With --milvus-uri,
    also drops the Milvus collections of snapshots that the store no longer has.
    """
    from retrieval.snapshots import retention

    opened = Store.open(store)
    min_age = timedelta(0) if young else retention.MIN_AGE
    planned = retention.plan_prune(opened, collection, keep, min_age=min_age)
    removed = [entry.name for entry in planned if not entry.kept]
    if (removed or milvus_uri) and not yes:
        _show_prune(collection, planned, None, as_json)
        in_milvus = f", and what Milvus at {milvus_uri} has of removed ones" if milvus_uri else ""
        confirmation.confirm(f"remove {counted(len(removed), 'snapshot')}{in_milvus}", yes=yes)
    retention.prune(opened, collection, planned)
    # Last, so that collections that are not dropped now are found again.
    dropped = []
    if milvus_uri:
        milvus = (opened, collection, milvus_uri, milvus_token)
        dropped = asyncio.run(milvus_target.drop_removed(*milvus))
    _show_prune(collection, planned, dropped, as_json)


def _show_prune(
    collection: str,
    planned: Sequence[PruneCandidate],
    dropped: Sequence[str] | None,
    as_json: bool,
) -> None:
    """Prints what goes and what stays.

    dropped: Collections in Milvus that are gone; None before anything is.
    """
    done = dropped is not None
    action = "removed" if done else "would be removed"
    rows: list[dict[str, object]] = [
        {
            "collection": collection,
            "snapshot": entry.name,
            "bytes": entry.bytes,
            "removed": done and not entry.kept,
            "kept": entry.kept,
        }
        for entry in planned
    ]
    rows += [
        {
            "collection": collection,
            "milvus_collection": name,
            "removed": True,
        }
        for name in dropped or ()
    ]
    if as_json:
        for row in rows:
            output.print_json(row)
        return
    output.print_table(
        ("snapshot", "size", "action"),
        [
            *(
                (entry.name, output.format_bytes(entry.bytes), entry.kept or action)
                for entry in planned
            ),
            *((name, "in Milvus", action) for name in dropped or ()),
        ],
    )


def _show(collection: str, record: snapshot_pb2.AliasRecord, as_json: bool) -> None:
    output.print_result(
        {
            "collection": collection,
            "epoch": record.epoch,
            "current": record.current,
            "rollback_to_epoch": record.rollback_to_epoch or None,
            "who": record.who,
            "why": record.why,
            "gate": _gate(record) if record.HasField("gate") else None,
        },
        f"{record.current} is current in {collection!r} since epoch {record.epoch}",
        as_json=as_json,
    )


def _gate(record: snapshot_pb2.AliasRecord) -> dict[str, object]:
    return {
        "passed": record.gate.passed,
        "failed": list(record.gate.failed),
        "forced_because": record.gate.forced_because,
        "report": record.gate.report,
    }

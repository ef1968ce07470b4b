"""`nearline snapshots promote`, `rollback` and `prune`: change which snapshot is current."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated

import typer

from nearline.cli import alias_options, exporting, gating, options, output
from nearline.clients import AdminClient
from nearline.errors import NotReady
from nearline.snapshot import Store
from nearline.v1 import snapshot_pb2

_POLL_S = 0.2


def promote(
    snapshot_id: Annotated[str, typer.Argument(metavar="ID", help="Snapshot id.")],
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    why: alias_options.WhyOption = "",
    force: gating.ForceOption = False,
    embedding: gating.EmbeddingOption = "",
    allow_model_change: gating.ModelChangeOption = False,
    interactions: gating.InteractionsOption = None,
    policies: gating.PoliciesOption = None,
    expect_epoch: alias_options.EpochOption = 0,
    router: alias_options.RouterOption = "",
    redis: alias_options.RedisOption = "",
    wait_s: alias_options.WaitOption = 0.0,
    as_json: output.JsonFlag = False,
) -> None:
    """Make a snapshot current, once the release gate has judged it beside the one that is.

    Routers load it beside the one they serve and flip when it is ready; `nearline status` shows
    how far they are. With --router, --store has to name the store of the router all the same: what
    judges is here.
    """
    from retrieval.life import aliases

    gating.check_forced(force, why)
    who = aliases.who_am_i()
    opened = Store.open(store)
    asked = gating.Asked(
        embedding=embedding,
        allow_model_change=allow_model_change,
        interactions=interactions,
        policies=policies,
        redis=redis,
    )
    check = None
    if not router or snapshot_id in opened.snapshot_ids(collection):
        # Before minutes of judging, not after them; and what it is judged against stays so long.
        expect_epoch = aliases.check_epoch(opened, collection, expect_epoch)
    if not router:
        check = promotable(opened, collection, redis)
        check(opened.manifest(collection, snapshot_id))
    gate = gating.passed(
        opened,
        collection,
        snapshot_id,
        asked,
        forced_because=why if force else "",
        elsewhere=router,
        quiet=as_json,
    )
    if router:

        async def ask() -> snapshot_pb2.AliasRecord:
            async with AdminClient(router) as admin:
                record = await admin.promote(
                    snapshot_id,
                    collection,
                    expected_epoch=expect_epoch,
                    who=who,
                    why=why,
                    gate=gate,
                )
                await served(admin, collection, record, wait_s)
                return record

        record = asyncio.run(ask())
    else:
        assert check is not None
        record = aliases.promote(
            opened,
            collection,
            snapshot_id,
            expected_epoch=expect_epoch,
            who=who,
            why=why,
            # The gate has just read all files.
            verify="files" in gate.failed,
            check=check,
            gate=gate,
        )
    _show(collection, record, as_json)


def rollback(
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    why: alias_options.WhyOption = "",
    expect_epoch: alias_options.EpochOption = 0,
    router: alias_options.RouterOption = "",
    redis: alias_options.RedisOption = "",
    wait_s: alias_options.WaitOption = 0.0,
    as_json: output.JsonFlag = False,
) -> None:
    """Make the snapshot before the current one current again; once more goes further back."""
    from retrieval.life import aliases

    who = aliases.who_am_i()
    if router:

        async def ask() -> snapshot_pb2.AliasRecord:
            async with AdminClient(router) as admin:
                record = await admin.roll_back(
                    collection, expected_epoch=expect_epoch, who=who, why=why
                )
                await served(admin, collection, record, wait_s)
                return record

        record = asyncio.run(ask())
    else:
        opened = Store.open(store)
        record = aliases.roll_back(
            opened,
            collection,
            expected_epoch=expect_epoch,
            who=who,
            why=why,
            check=promotable(opened, collection, redis),
        )
    _show(collection, record, as_json)


def prune(
    keep: Annotated[
        int,
        typer.Option(min=0, help="Snapshots to keep beside those that are needed, newest first."),
    ] = 2,
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove; without it nothing is removed, only shown.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also remove snapshots younger than an hour.")
    ] = False,
    milvus_uri: exporting.UriOption = "",
    milvus_token: exporting.TokenOption = "",
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Remove old snapshots, and what killed builds left behind.

    What the aliases name now and what a rollback would go back to always stays. With --milvus-uri
    the collections go, too, that Milvus has of snapshots of this store that are gone, and of
    exports that were interrupted over a day ago.
    """
    from retrieval.life import pruning

    opened = Store.open(store)
    planned = pruning.plan(opened, collection, keep, force=force)
    going = [one.name for one in planned if not one.kept]
    milvus = (opened, collection, milvus_uri, milvus_token)
    strays = asyncio.run(exporting.strays(*milvus, going)) if milvus_uri else []
    dropped: list[str] = []
    if yes:
        pruning.prune(opened, collection, planned)
        # Last, so that what is not dropped now is found again.
        if strays:
            dropped = asyncio.run(exporting.remove_strays(*milvus, strays))
    gone = "removed" if yes else "would be removed"
    rows: list[dict[str, object]] = [
        {
            "collection": collection,
            "snapshot": one.name,
            "bytes": one.bytes,
            "removed": yes and not one.kept,
            "kept": one.kept,
        }
        for one in planned
    ]
    rows += [
        {
            "collection": collection,
            "snapshot": one.snapshot_id,
            "milvus_collection": one.name,
            "chunks": one.chunks,
            "removed": one.name in dropped,
            "kept": one.kept,
        }
        for one in strays
    ]
    if as_json:
        for row in rows:
            output.print_json(row)
        return
    output.print_table(
        ("snapshot", "size", "what becomes of it"),
        [
            *((one.name, output.size(one.bytes), one.kept or gone) for one in planned),
            *((one.name, f"{one.chunks:,} chunks", one.kept or gone) for one in strays),
        ],
    )
    if not yes and not all([one.kept for one in planned] + [one.kept for one in strays]):
        output.console().print("Nothing was removed; add --yes to remove.")


def promotable(
    store: Store, collection: str, redis: str
) -> Callable[[snapshot_pb2.Manifest], None]:
    """Gives what refuses a snapshot that the change log cannot be followed from."""
    from retrieval.changes.logs import ChangeLogs
    from retrieval.changes.promoting import promotable
    from retrieval.life.aliases import who_am_i

    async def ask() -> Callable[[snapshot_pb2.Manifest], None]:
        logs = ChangeLogs(store, redis, who=who_am_i()) if redis else None
        try:
            return await promotable(store, logs, collection)
        finally:
            if logs is not None:
                await logs.close()

    return asyncio.run(ask())


async def served(
    admin: AdminClient, collection: str, record: snapshot_pb2.AliasRecord, wait_s: float
) -> None:
    """Waits until the router serves a record, or says why it does not.

    Raises: NotReady: it cannot get the snapshot ready, or not in time.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    while wait_s:
        for found in (await admin.serving_status()).collections:
            if found.collection == collection and found.epoch >= record.epoch:
                return
            if found.collection == collection and found.newest_epoch == record.epoch:
                if found.problem:
                    raise NotReady(
                        f"{record.current} is current since epoch {record.epoch}, but "
                        f"{admin.address} goes on serving {found.snapshot_id}: {found.problem}; "
                        "mend it, or roll back"
                    )
        if loop.time() >= deadline:
            raise NotReady(
                f"{record.current} is current since epoch {record.epoch}, but {admin.address} "
                f"does not serve it after {wait_s:g} s; `nearline status` shows how far it is"
            )
        await asyncio.sleep(_POLL_S)


def _show(collection: str, record: snapshot_pb2.AliasRecord, as_json: bool) -> None:
    if as_json:
        output.print_json(
            {
                "collection": collection,
                "epoch": record.epoch,
                "current": record.current,
                "rollback_to_epoch": record.rollback_to_epoch or None,
                "who": record.who,
                "why": record.why,
                "gate": _gate(record) if record.HasField("gate") else None,
            }
        )
        return
    output.console().print(
        f"{record.current} is current in {collection!r} since epoch {record.epoch}"
    )


def _gate(record: snapshot_pb2.AliasRecord) -> dict[str, object]:
    return {
        "passed": record.gate.passed,
        "failed": list(record.gate.failed),
        "forced_because": record.gate.forced_because,
        "report": record.gate.report,
    }

"""`nearline snapshots promote`, `rollback` and `prune`: change which snapshot is current."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated

import typer

from nearline.cli import exporting, options, output
from nearline.clients import AdminClient
from nearline.errors import NotReady
from nearline.snapshot import Store
from nearline.v1 import snapshot_pb2

_POLL_S = 0.2
_RouterOption = Annotated[
    str,
    typer.Option(
        "--router",
        metavar="HOST:PORT",
        help="Ask this router, which has the store; empty: change the store of --store directly.",
    ),
]
_WhyOption = Annotated[str, typer.Option("--why", help="Why, for the record.")]
_EpochOption = Annotated[
    int,
    typer.Option(
        "--expect-epoch", min=0, help="Refuse unless this is the epoch in force; 0: whatever it is."
    ),
]
_RedisOption = Annotated[
    str,
    typer.Option(
        "--redis",
        metavar="URL",
        help="Redis that holds the change log: refuse a snapshot that it cannot be followed from. "
        "With --router, the router looks into its own.",
    ),
]
_WaitOption = Annotated[
    float,
    typer.Option(
        "--wait",
        min=0,
        metavar="SECONDS",
        help="With --router: wait until it serves the snapshot; fail with the reason it does not.",
    ),
]


def promote(
    snapshot_id: Annotated[str, typer.Argument(metavar="ID", help="Snapshot id.")],
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    why: _WhyOption = "",
    expect_epoch: _EpochOption = 0,
    router: _RouterOption = "",
    redis: _RedisOption = "",
    wait_s: _WaitOption = 0.0,
    as_json: output.JsonFlag = False,
) -> None:
    """Make a snapshot current, once its files are what its manifest says.

    Routers load it beside the one they serve and flip when it is ready; `nearline status` shows
    how far they are.
    """
    from retrieval.life import aliases

    who = aliases.who_am_i()
    if router:

        async def ask() -> snapshot_pb2.AliasRecord:
            async with AdminClient(router) as admin:
                record = await admin.promote(
                    snapshot_id, collection, expected_epoch=expect_epoch, who=who, why=why
                )
                await _served(admin, collection, record, wait_s)
                return record

        record = asyncio.run(ask())
    else:
        opened = Store.open(store)
        record = aliases.promote(
            opened,
            collection,
            snapshot_id,
            expected_epoch=expect_epoch,
            who=who,
            why=why,
            check=_promotable(opened, collection, redis),
        )
    _show(collection, record, as_json)


def rollback(
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    why: _WhyOption = "",
    expect_epoch: _EpochOption = 0,
    router: _RouterOption = "",
    redis: _RedisOption = "",
    wait_s: _WaitOption = 0.0,
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
                await _served(admin, collection, record, wait_s)
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
            check=_promotable(opened, collection, redis),
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


def _promotable(
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


async def _served(
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
            }
        )
        return
    output.console().print(
        f"{record.current} is current in {collection!r} since epoch {record.epoch}"
    )

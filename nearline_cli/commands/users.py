"""`nearline users`: what is kept of a user; recording, and erasing it."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer

from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline.errors import InvalidRequest
from nearline_cli.terminal import options, output

app = typer.Typer(no_args_is_help=True, help="Record, show or erase what users did.")
_Id = Annotated[str, typer.Argument(metavar="USER", help="User id.")]


@app.command()
def record(
    item: Annotated[list[str], typer.Argument(metavar="ITEM…", help="Items, first one first.")],
    user: Annotated[str, typer.Option(metavar="ID", help="Who did it.")] = "",
    session: Annotated[str, typer.Option(metavar="ID", help="Session that it was done in.")] = "",
    kind: Annotated[
        str, typer.Option(metavar="NAME", help="What was done: view, cart, purchase …")
    ] = c.DEFAULT_KIND,
    event_id: Annotated[
        str,
        typer.Option(metavar="ID", help="Of one item: the same event of a user counts once a day."),
    ] = "",
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Record that a user, or somebody in a session, did something with items, now."""
    if not (user or session):
        raise InvalidRequest("nobody was named; say who did it: --user ID, --session ID or both")
    if event_id and len(item) > 1:
        raise InvalidRequest(f"--event-id {event_id} names one event, not {len(item)}; send one")
    done = [
        c.Interaction(item_id=one, user_id=user, session_id=session, kind=kind, event_id=event_id)
        for one in item
    ]

    async def write() -> c.RecordReply:
        async with RetrievalClient(address) as client:
            return await client.record_interactions(done, collection=collection)

    reply = asyncio.run(write())
    if as_json:
        output.print_json({"recorded": reply.recorded, "duplicates": reply.duplicates})
    else:
        before = f", {reply.duplicates} was there already" if reply.duplicates else ""
        print(f"recorded {reply.recorded}{before}")


@app.command()
def show(
    user_id: _Id,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Show all that is kept of a user; --json is its export."""

    async def read() -> c.UserRecord:
        async with RetrievalClient(address) as client:
            return await client.get_user(user_id, collection=collection)

    kept = asyncio.run(read())
    if as_json:
        output.print_json(output.json_record(asdict(kept)))
        return
    if not (kept.interactions or kept.learned or kept.deleted):
        print(f"nothing is known of {user_id}")
        return
    for title, interactions in (
        ("recorded", kept.interactions),
        ("learned by the snapshot", kept.learned),
    ):
        rows = [
            ("" if one.time is None else f"{one.time:%F %T}", one.kind, one.item_id)
            for one in interactions
        ]
        output.print_table((title, "kind", "item"), rows)
    if kept.deleted is not None:
        print(f"deleted {kept.deleted:%F %T} UTC")


@app.command()
def delete(
    user_id: _Id,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Erase all that is kept of a user, and say what is left of their influence."""

    async def erase() -> c.DeletionReceipt:
        async with RetrievalClient(address) as client:
            return await client.delete_user(user_id, collection=collection)

    receipt = asyncio.run(erase())
    if as_json:
        output.print_json(output.json_record(asdict(receipt)))
        return
    if not (receipt.interactions or receipt.log_entries or receipt.sessions or receipt.snapshots):
        print(f"nothing was known of {user_id}; who comes by that name later begins again")
        return
    print(
        f"erased {receipt.interactions} interactions, {receipt.log_entries} log entries and "
        f"{receipt.sessions} sessions at {receipt.deleted:%F %T} UTC"
    )
    for one in receipt.snapshots:
        how = "is served: build again to be rid of it" if one.in_force else "goes when it is pruned"
        print(f"snapshot {one.snapshot_id} learned from the user; it {how}")

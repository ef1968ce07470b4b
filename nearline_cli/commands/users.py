"""`nearline users`: records, imports, shows or erases interactions of users."""

from __future__ import annotations

from dataclasses import asdict, astuple
from typing import Annotated

import typer

from nearline import contract as c
from nearline.clients.blocking import BlockingRetrievalClient
from nearline.counts import counted
from nearline.errors import InvalidRequest, NotReady
from nearline.retry import SAME_KEY
from nearline_cli.commands.users_import import import_
from nearline_cli.terminal import confirmation, options, output
from nearline_cli.terminal.scalars import read_scalars

app = typer.Typer(no_args_is_help=True, help="Record, import, show or erase interactions of users.")
_Id = Annotated[str, typer.Argument(metavar="USER", help="User id.")]


@app.command()
def record(
    item: Annotated[list[str], typer.Argument(metavar="ITEM…", help="Items, in order.")],
    user: Annotated[str, typer.Option(metavar="ID", help="User who did it.")] = "",
    session: Annotated[str, typer.Option(metavar="ID", help="Session in which it happened.")] = "",
    kind: Annotated[
        str, typer.Option(metavar="NAME", help="Kind of interaction: view, cart, purchase …")
    ] = c.DEFAULT_KIND,
    event_id: Annotated[
        str,
        typer.Option(
            metavar="ID",
            help="Id of the event, for a single item: a repeated event of a user is ignored for a "
            "day.",
        ),
    ] = "",
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Record that a user, or an anonymous session, interacted with items.

    For example: nearline users record sku-1 --user u42 --kind purchase
    """
    if not (user or session):
        raise InvalidRequest("no user or session was named; use --user ID, --session ID or both")
    if event_id and len(item) > 1:
        raise InvalidRequest(
            f"--event-id {event_id} identifies one event, but {len(item)} items were named"
        )
    done = [
        c.Interaction(
            item_id=item_id, user_id=user, session_id=session, kind=kind, event_id=event_id
        )
        for item_id in item
    ]
    with BlockingRetrievalClient(address) as client:
        try:
            reply = client.record_interactions(done, collection=collection)
        except NotReady as error:
            advice = "run the same command again"
            advice += "" if event_id else " unless nearline users show has them"
            raise error.with_message(error.message.replace(SAME_KEY, advice)) from error
    before = f", {reply.duplicates} already recorded" if reply.duplicates else ""
    unknown = f", {reply.unknown_items} of unknown items: see nearline items show ID"
    told = f"recorded {reply.recorded}{before}{unknown if reply.unknown_items else ''}"
    output.print_result(asdict(reply), told, as_json=as_json)


app.command("import")(import_)


@app.command("set")
def set_(
    user_id: _Id,
    attribute: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME=VALUE…",
            help="Attributes, such as country=DE or age=34; '\"34\"' is a text. None: removes them "
            "all.",
        ),
    ] = None,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
) -> None:
    """Set the attributes of a user, in place of any earlier ones.

    For example: nearline users set u42 country=DE plan=pro age=34
    """
    attributes = read_scalars(attribute or ())
    with BlockingRetrievalClient(address) as client:
        client.set_user(user_id, attributes, collection=collection)
    print(f"{user_id} has {counted(len(attributes), 'attribute')}")


@app.command()
def show(
    user_id: _Id,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Show what is stored about a user, of interactions the newest 10,000; --json exports it."""
    with BlockingRetrievalClient(address) as client:
        stored = client.get_user(user_id, collection=collection)
    if as_json:
        output.print_json(output.json_record(asdict(stored)))
        return
    if not (stored.interactions or stored.learned or stored.deleted or stored.attributes):
        print(f"nothing is stored about {user_id}")
        return
    if stored.attributes:
        output.print_table(("attribute", "value"), sorted(stored.attributes.items()))
    for title, interactions in (
        ("recorded", stored.interactions),
        ("learned by the snapshot", stored.learned),
    ):
        rows = [
            (
                "" if interaction.time is None else f"{interaction.time:%F %T}",
                interaction.kind,
                interaction.item_id,
            )
            for interaction in interactions
        ]
        output.print_table((title, "kind", "item"), rows)
    if stored.deleted is not None:
        print(f"deleted {stored.deleted:%F %T} UTC")


@app.command()
def delete(
    user_id: _Id,
    yes: confirmation.YesOption = False,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Erase everything stored about a user, and report which snapshots still learned from it."""
    confirmation.confirm(
        f"erase everything stored about user {user_id!r} in {collection!r}", yes=yes
    )
    with BlockingRetrievalClient(address) as client:
        receipt = client.delete_user(user_id, collection=collection)
    if as_json:
        output.print_json(output.json_record(asdict(receipt)))
        return
    if not any(astuple(receipt)[1:]):  # All but the time.
        print(f"nothing was stored about {user_id}; the id starts fresh if used again")
        return
    print(
        f"erased {counted(receipt.interactions, 'interaction')}, "
        f"{counted(receipt.log_entries, 'log entry', 'log entries')}, "
        f"{counted(receipt.attributes, 'attribute')} and "
        f"{counted(receipt.sessions, 'session')} at {receipt.deleted:%F %T} UTC"
    )
    print("searches and lists are recorded without users, so no record named this one")
    if receipt.imports_left_out:
        print("imported interactions of this user are left out of every later training")
    for snapshot in receipt.snapshots:
        how = (
            "is in service: build again to replace it"
            if snapshot.in_force
            else "is removed by pruning"
        )
        print(f"snapshot {snapshot.snapshot_id} learned from this user; it {how}")

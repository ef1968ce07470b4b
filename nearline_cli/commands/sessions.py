"""`nearline sessions`: shows or deletes a conversation."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from nearline.clients.blocking import BlockingGenerationClient
from nearline.counts import counted
from nearline_cli.terminal import confirmation, options, output

app = typer.Typer(no_args_is_help=True, help="Show or delete a conversation.")
_Id = Annotated[
    str, typer.Argument(metavar="ID", help="Session id, as passed to nearline ask --session.")
]


@app.command()
def show(
    session_id: _Id,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    token: options.TokenOption = "",
    as_json: output.JsonFlag = False,
) -> None:
    """Show everything remembered of a conversation; --json exports it."""
    with BlockingGenerationClient(address, token=token) as client:
        session = client.session(session_id, collection=collection)
    if as_json:
        output.print_json(output.json_record(asdict(session)))
        return
    for turn in session.turns:
        asked = f" ({output.one_line(turn.condensed, 100)})" if turn.condensed else ""
        print(f"Q: {turn.question}{asked}\nA: {turn.answer or '(no answer)'}\n")
    until = "" if session.expire_time is None else f", kept until {session.expire_time:%F %T} UTC"
    print(f"version {session.version}, {counted(len(session.turns), 'turn')}{until}")


@app.command()
def delete(
    session_id: _Id,
    yes: confirmation.YesOption = False,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    token: options.TokenOption = "",
    as_json: output.JsonFlag = False,
) -> None:
    """Delete a conversation."""
    confirmation.confirm(f"delete conversation {session_id!r}", yes=yes)
    with BlockingGenerationClient(address, token=token) as client:
        deleted = client.delete_session(session_id, collection=collection)
    text = "deleted" if deleted else "not found; nothing to delete"
    output.print_result({"session_id": session_id, "deleted": deleted}, text, as_json=as_json)

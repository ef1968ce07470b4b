"""`nearline policies`: shows and sets the policies of a collection's surfaces."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf import json_format

from nearline.clients.blocking import BlockingAdminClient
from nearline.errors import InvalidRequest
from nearline_cli.terminal import options, output

app = typer.Typer(
    no_args_is_help=True, help="Show and set the policies of a collection's surfaces."
)


@app.command()
def show(
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Show the policies that were set, as TOML."""
    with BlockingAdminClient(address) as client:
        found = client.policies(collection)
    if as_json:
        output.print_json(json_format.MessageToDict(found, preserving_proto_field_name=True))
    elif not found.number:
        output.print_note(f"none were set for {collection}; it has the policies of its router")
    else:
        why = f": {found.why}" if found.why else ""
        output.print_note(f"set {found.number} of {collection}{why}")
        print(found.toml, end="" if found.toml.endswith("\n") else "\n")


@app.command("set")
def set_policies(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE|-", help="TOML file of policies; -: standard input."),
    ],
    expected: Annotated[
        int,
        typer.Option(metavar="N", help="Refuse unless set N is in force. \\[default: any]"),
    ] = 0,
    why: options.WhyOption = "",
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Replace the policies of a collection; the next lists follow them.

    For example: nearline policies set policies.toml --collection shop

    An empty file returns to the policies of the router. See docs/guides/surfaces.md.
    """
    try:
        toml = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{file} cannot be read: {error}", field="file") from error
    with BlockingAdminClient(address) as client:
        made = client.set_policies(toml, collection, expected_number=expected, why=why)
    output.print_result(
        json_format.MessageToDict(made, preserving_proto_field_name=True),
        f"set {made.number} of policies is in force for {collection}"
        if toml.strip()
        else f"{collection} has the policies of its router again: {file} is empty",
        as_json=as_json,
    )

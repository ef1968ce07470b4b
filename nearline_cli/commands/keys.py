"""`nearline keys`: makes API keys, lists them, and takes them back."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from nearline.access.caller import EVERY
from nearline.access.rights import Right
from nearline.contract import DEFAULT_TENANT
from nearline.counts import counted
from nearline.durations import parse_duration
from nearline.errors import InvalidRequest
from nearline_cli.local.key_store import KeyStore
from nearline_cli.terminal import confirmation, durations, output

app = typer.Typer(no_args_is_help=True, help="Make API keys, list them, and take them back.")
_RIGHTS = {right.name.lower(): right for right in Right if right is not Right.NONE}
_File = Annotated[
    Path,
    typer.Option(
        "--file",
        metavar="FILE",
        help="File of the keys; services read it with --keys and take changes up within seconds.",
    ),
]


@app.command()
def create(
    file: _File,
    tenant: Annotated[
        str,
        typer.Option(metavar="NAME", help='Whom the key acts for; "*" is an operator of all.'),
    ] = DEFAULT_TENANT,
    right: Annotated[
        list[str],
        typer.Option(
            "--right",
            metavar="[COLLECTION=]RIGHT",
            help="read, write, admin or service; of one collection, or of all others. Repeat it.",
        ),
    ] = ["read"],  # noqa: B006
    role: Annotated[
        list[str],
        typer.Option("--role", metavar="NAME", help="Role that items name as a reader. Repeat it."),
    ] = [],  # noqa: B006
    expires: Annotated[
        str,
        typer.Option(
            metavar=durations.METAVAR,
            help="For how long it is valid, such as 90d. \\[default: ever]",
        ),
    ] = "",
    as_json: output.JsonFlag = False,
) -> None:
    """Make a key and print it once; only its hash is stored."""
    rights = dict(map(_right, right))
    until = None
    if expires:
        until = datetime.now(UTC) + timedelta(seconds=parse_duration(expires, "--expires"))
    key, key_id = KeyStore(file).create(tenant, rights, role, until)
    text = f"{key}\nThis is shown once. Its id is {key_id}."
    output.print_result({"key": key, "id": key_id}, text, as_json=as_json)


@app.command("list")
def list_keys(file: _File, as_json: output.JsonFlag = False) -> None:
    """List the keys: their ids, tenants and rights."""
    keys = KeyStore(file).list()
    if as_json:
        records = [
            {
                "id": key_id,
                "tenant": one.caller.tenant,
                "roles": one.caller.roles,
                "rights": {name: right.name.lower() for name, right in one.caller.rights.items()},
                "expires_s": one.expires_s,
            }
            for key_id, one in keys.items()
        ]
        output.print_json({"keys": records})
        return
    for key_id, one in keys.items():
        rights = ", ".join(
            f"{name}={right.name.lower()}" for name, right in one.caller.rights.items()
        )
        roles = f", roles {', '.join(one.caller.roles)}" if one.caller.roles else ""
        until = ""
        if one.expires_s is not None:
            verb = "expired" if one.expires_s <= time.time() else "expires"
            until = f", {verb} {datetime.fromtimestamp(one.expires_s, UTC):%F %T} UTC"
        print(f"{key_id}  tenant {one.caller.tenant}, {rights}{roles}{until}")
    print(counted(len(keys), "key"))


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the key; see keys list.")],
    file: _File,
    yes: confirmation.YesOption = False,
    as_json: output.JsonFlag = False,
) -> None:
    """Take a key back; services refuse it within two seconds."""
    # Not named: it may be a whole key, pasted.
    confirmation.confirm(f"take the key out of {file} for good", yes=yes)
    key_id = KeyStore(file).revoke(key_id)
    output.print_result({"id": key_id, "revoked": True}, f"{key_id} revoked", as_json=as_json)


def _right(text: str) -> tuple[str, Right]:
    """Returns the collection and the right of an option such as "products=write" or "read"."""
    collection, separator, name = text.rpartition("=")
    right = _RIGHTS.get(name)
    if right is None or (separator and not collection):
        raise InvalidRequest(
            f"--right {text!r} is not of the form COLLECTION=RIGHT or RIGHT; rights are "
            f"{', '.join(_RIGHTS)}",
            field="right",
        )
    return collection or EVERY, right

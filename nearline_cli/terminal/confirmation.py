"""Asks before something is gone for good."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from nearline.errors import InvalidRequest
from nearline_cli.terminal import output

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]


def confirm(action: str, *, yes: bool) -> None:
    """Asks on a terminal whether to do something; returns if the answer is yes.

    Args:
        action: What is to be done, as an order: "erase everything stored about user 'u42'".
        yes: Whether the command was told not to ask.
    Raises:
        InvalidRequest: There is no terminal to ask on.
        typer.Exit: The answer is no.
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InvalidRequest(
            f"this would {action}, and there is no terminal to ask on; add --yes to do it",
            field="yes",
        )
    sys.stderr.write(f"{action[0].upper()}{action[1:]}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        output.print_note("nothing was changed")
        raise typer.Exit(1)

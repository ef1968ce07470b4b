"""Options of commands that change which snapshot is served."""

from __future__ import annotations

from typing import Annotated

import typer

from nearline.durations import Duration
from nearline_cli.terminal import durations
from nearline_cli.terminal.options import read_address

NO_WAIT = Duration(0)
RouterOption = Annotated[
    str,
    typer.Option(
        "--address",
        parser=lambda value: read_address(value) if value else value,
        envvar="NEARLINE_ADDRESS",
        metavar="HOST:PORT",
        help="Router that makes the change. \\[default: none; the store is changed directly]",
    ),
]
EpochOption = Annotated[
    int,
    typer.Option(
        "--expect-epoch",
        min=0,
        help="Refuse the change unless this is the current epoch; 0: any epoch.",
    ),
]
RedisOption = Annotated[
    str,
    typer.Option(
        "--redis",
        metavar="URL",
        help="Redis that holds the change log; a snapshot from which the log cannot be followed is "
        "refused. A router uses its own Redis.",
    ),
]
WaitOption = Annotated[
    float,
    typer.Option(
        "--wait",
        parser=durations.read_wait,
        metavar=durations.METAVAR,
        help="With --address: wait so long, or without limit if no duration is given, until the "
        "router serves the snapshot; fail with the reason.",
    ),
]

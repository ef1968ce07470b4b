"""Options of commands that change which snapshot answers."""

from __future__ import annotations

from typing import Annotated

import typer

RouterOption = Annotated[
    str,
    typer.Option(
        "--router",
        metavar="HOST:PORT",
        help="Ask this router, which has the store; empty: change the store of --store directly.",
    ),
]
WhyOption = Annotated[str, typer.Option("--why", help="Why, for the record.")]
EpochOption = Annotated[
    int,
    typer.Option(
        "--expect-epoch", min=0, help="Refuse unless this is the epoch in force; 0: whatever it is."
    ),
]
RedisOption = Annotated[
    str,
    typer.Option(
        "--redis",
        metavar="URL",
        help="Redis that holds the change log: refuse a snapshot that it cannot be followed from. "
        "With --router, the router looks into its own.",
    ),
]
WaitOption = Annotated[
    float,
    typer.Option(
        "--wait",
        min=0,
        metavar="SECONDS",
        help="With --router: wait until it serves the snapshot; fail with the reason it does not.",
    ),
]

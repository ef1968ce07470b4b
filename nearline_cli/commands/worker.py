"""`nearline worker`: a process that works on the queue of documents."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Final

import typer

# Every option but one is a setting of the worker, which knows them.
CONTEXT: Final = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}


def worker(
    context: typer.Context,
    wants_help: Annotated[
        bool, typer.Option("--help", is_eager=True, help="Show every setting, and end.")
    ] = False,
) -> None:
    """Work on the queue of documents, until told to stop; needs --redis URL --retrieval HOST:PORT.

    Takes every setting of section `worker` of docs/reference/settings.md as an option, for example
    --batch, --attempts and --sources. On SIGTERM or Ctrl-C it finishes its current documents within
    --notice-s, or returns them to the queue.
    """
    if wants_help:
        _show(context)
        return
    from nearline_cli.local.processes import WORKER_MODULE, python_path

    # This process becomes the worker, so that whoever started it ends and watches nothing else.
    os.execve(
        sys.executable,
        [sys.executable, "-P", "-m", WORKER_MODULE, *context.args],
        {**os.environ, "PYTHONPATH": python_path()},
    )


def _show(context: typer.Context) -> None:
    # Imported late: it loads the settings' library.
    from index_builder.ingest.settings import WorkerSettings
    from nearline_cli.terminal import output

    typer.echo(context.get_help())
    output.print_table(
        ("setting", "default", "meaning"),
        [
            (f"--{name.replace('_', '-')}", info.default, info.description)
            for name, info in WorkerSettings.model_fields.items()
        ],
    )

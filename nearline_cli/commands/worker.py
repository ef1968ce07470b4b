"""`nearline worker`: a process that works on the ingest queue."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Final

import typer

# Every option except --help is a setting, which the worker itself parses.
_CONTEXT: Final = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}

app = typer.Typer()


@app.command(context_settings=_CONTEXT)
def worker(
    context: typer.Context,
    show_help: Annotated[
        bool, typer.Option("--help", is_eager=True, help="Show every setting and exit.")
    ] = False,
) -> None:
    """Process documents of the ingest queue until stopped.

    For example: nearline worker --redis redis://127.0.0.1:7704/0 --retrieval 127.0.0.1:7700

    Takes every setting of section `worker` of docs/reference/settings.md as an option, for example
    --batch, --attempts and --sources. On SIGTERM or Ctrl-C it finishes its current documents within
    --notice-s, or returns them to the queue.
    """
    if show_help:
        _show(context)
        return
    from nearline_cli.local.processes import WORKER_MODULE, python_path
    from nearline_cli.terminal.missing_packages import check_service

    check_service(WORKER_MODULE)
    # This process becomes the worker, so its parent has no other process to watch or stop.
    os.execve(
        sys.executable,
        [sys.executable, "-P", "-m", WORKER_MODULE, *context.args],
        {**os.environ, "PYTHONPATH": python_path()},
    )


def _show(context: typer.Context) -> None:
    # Imported late: it loads the packages of the worker.
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

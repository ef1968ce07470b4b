"""The command line: registers the commands, and turns errors into one line and an exit code."""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import nearline
from nearline.errors import InternalError, InvalidRequest, NearlineError, SettingsError
from nearline_cli.commands import (
    ask,
    build,
    certs,
    changes,
    count,
    demo,
    doctor,
    eval as evaluation,
    ingest,
    items,
    jobs,
    keys,
    load,
    mcp,
    models,
    recommend,
    recommend_all,
    reembed,
    search,
    sessions,
    status,
    up,
    users,
    worker,
)
from nearline_cli.commands.releases import gate, replay, rollout, snapshots
from nearline_cli.terminal import output
from nearline_cli.terminal.option_groups import add_command

_FAILED = 1
_MISUSED = 2

app = typer.Typer(
    name="nearline",
    help="Recommendation and RAG retrieval over your own catalogue and documents.",
    epilog="Exit codes: 0 done, 1 failed, 2 bad arguments or settings, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.command()(demo.demo)
add_command(app, build.build)
add_command(app, changes.compact)
add_command(app, reembed.reembed)
app.command()(up.up)
add_command(app, ingest.ingest)
app.command(context_settings=worker.CONTEXT)(worker.worker)
app.command()(search.search)
app.command()(recommend.recommend)
add_command(app, recommend_all.recommend_all, "recommend-all")
app.command()(ask.ask)
app.command()(mcp.mcp)
app.command()(count.count)
app.command()(status.status)
app.command()(doctor.doctor)
app.add_typer(snapshots.app, name="snapshots")
app.add_typer(gate.app, name="gate")
app.command()(replay.replay)
app.add_typer(rollout.app, name="rollout")
app.add_typer(models.app, name="models")
app.add_typer(items.app, name="items")
app.add_typer(jobs.app, name="jobs")
app.add_typer(users.app, name="users")
app.add_typer(keys.app, name="keys")
app.command()(certs.certs)
app.add_typer(sessions.app, name="sessions")
app.add_typer(changes.app, name="changes")
app.add_typer(evaluation.app, name="eval")
app.command()(load.load)
# Benchmarks and their baselines are not installed: they are part of a source checkout.
if (Path(nearline.__file__).parents[1] / "benchmarks" / "app.py").is_file():
    from benchmarks.app import app as bench

    app.add_typer(bench, name="bench")


def _reflow_help(group: typer.Typer) -> None:
    """Joins the lines of each paragraph of help, which Typer would break where the code does."""
    for command in group.registered_commands:
        text = command.help or inspect.getdoc(command.callback) or ""
        command.help = "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            _reflow_help(inner.typer_instance)


_reflow_help(app)


def _version(requested: bool) -> None:
    if requested:
        print(f"nearline {nearline.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Declares the options that every command takes; `run` acts on --debug."""


def run(arguments: Sequence[str]) -> None:
    """Runs the command line and exits with its exit code."""
    words = list(arguments)
    # Anywhere on the line: people append it to the command that failed.
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        app(words, prog_name="nearline")
    except SystemExit as ended:
        # `nearline … | head`: the reader has read enough. Typer treats that as a failure.
        if isinstance(ended.__context__, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        raise
    except Exception as error:
        if debug:
            traceback.print_exc()
        reported = _as_nearline_error(error, words)
        output.print_error(reported, as_json="--json" in words)
        sys.exit(_MISUSED if isinstance(reported, SettingsError | InvalidRequest) else _FAILED)


def _as_nearline_error(error: Exception, words: Sequence[str]) -> NearlineError:
    # Python replaces each byte of an argument that it could not decode by a surrogate; clients
    # report that as an argument of theirs.
    origin: BaseException | None = error
    while origin is not None and not isinstance(origin, UnicodeEncodeError):
        origin = origin.__context__
    if origin is not None and any(origin.object in word for word in words):
        return InvalidRequest("an argument has bytes that are not UTF-8; pass it as UTF-8 text")
    if isinstance(error, NearlineError):
        return error
    return InternalError(
        f"{type(error).__name__}: {error}. This is a bug; --debug shows where it happened"
    )
